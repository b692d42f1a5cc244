"""Events are posted in the background. If the operator stops before, the log says how many are lost."""

import asyncio
import logging
import threading
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest

from rft_operator import recorder
from rft_operator.cluster import Cluster, ClusterError, Conflict
from rft_operator.decision import Note
from rft_operator.health import Signs
from rft_operator.objects.names import owner_of
from rft_operator.operator import Operator
from rft_operator.recorder import EventRecorder
from rft_operator.settings import Settings
from rft_run.cluster_text import cluster_text
from tests.unit.reconcile_support import rftjob
from tests.waiting import wait_until

SECONDS = 10.0
OWNER = owner_of(rftjob())


class Events:
    """Stores Events like an API server. While ``answers`` is not set, it does not answer."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.answers.set()
        self.asked = threading.Semaphore(0)
        self.messages: list[str] = []
        self.threads: set[str] = set()
        self.error: Exception | None = None

    def create(self, manifest: dict[str, Any]) -> None:
        self.asked.release()
        assert self.answers.wait(SECONDS)
        self.threads.add(threading.current_thread().name)
        if self.error is not None:
            raise self.error
        self.messages.append(manifest["message"])


def note(number: int) -> Note:
    return Note("Planned", cluster_text(f"message {number}"))


def test_nobody_waits_for_the_api_server_and_the_order_stays() -> None:
    events = Events()
    events.answers.clear()
    recorded = EventRecorder(events.create, background=True)
    for number in range(100):
        recorded.record(OWNER, note(number))
    assert events.messages == []
    events.answers.set()
    recorded.close(SECONDS)
    assert events.messages == [f"message {number}" for number in range(100)]
    (thread,) = events.threads
    assert thread.startswith("events-")


def test_the_events_of_several_jobs_are_posted_by_several_threads() -> None:
    events = Events()
    recorded = EventRecorder(events.create, background=True)
    for number in range(20):
        recorded.record(replace(OWNER, uid=f"uid-{number}"), note(number))
    recorded.close(SECONDS)
    assert sorted(events.messages) == sorted(f"message {number}" for number in range(20))
    assert len(events.threads) == recorder.EVENT_THREADS


def test_without_a_thread_an_event_is_posted_at_once() -> None:
    events = Events()
    EventRecorder(events.create, background=False).record(OWNER, note(1))
    assert events.messages == ["message 1"]
    assert events.threads == {threading.current_thread().name}


def test_an_event_has_the_time_at_which_it_was_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[dict[str, Any]] = []
    made = recorder.event
    monkeypatch.setattr(recorder, "event", lambda *given: made(*given) | {"thread": threading.get_ident()})
    recorded = EventRecorder(found.append, background=True)
    recorded.record(OWNER, note(1))
    recorded.close(SECONDS)
    assert [one["thread"] for one in found] == [threading.get_ident()]


def test_too_many_waiting_events_are_posted_by_who_records_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MAX_WAITING", 3)
    events = Events()
    events.answers.clear()
    recorded = EventRecorder(events.create, background=True)
    for number in range(3):
        recorded.record(OWNER, note(number))
    fourth = threading.Thread(target=recorded.record, args=(OWNER, note(3)), name="recording")
    fourth.start()
    for _ in range(2):
        assert events.asked.acquire(timeout=SECONDS)
    events.answers.set()
    fourth.join(SECONDS)
    recorded.close(SECONDS)
    assert sorted(events.messages) == [f"message {number}" for number in range(4)]
    assert [one for one in events.messages if one != "message 3"] == [
        f"message {number}" for number in range(3)
    ]
    assert "recording" in events.threads


def test_the_end_does_not_wait_long_and_says_how_many_events_are_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events = Events()
    events.answers.clear()
    recorded = EventRecorder(events.create, background=True)
    for number in range(5):
        recorded.record(OWNER, note(number))
    assert events.asked.acquire(timeout=SECONDS)
    closing = threading.Thread(target=recorded.close, args=(0.05,))
    closing.start()
    wait_until("the lost Events are logged", lambda: "4 Events are not posted" in caplog.text, 1.0)
    assert closing.is_alive(), "the thread of the running request must be waited for"
    events.answers.set()
    closing.join(SECONDS)
    assert events.messages == ["message 0"]
    assert recorded.waiting == 0
    recorded.record(OWNER, note(9))
    assert events.messages == ["message 0", "message 9"]


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (Conflict(409, "already exists"), logging.DEBUG),
        (ClusterError(403, "exceeded quota"), logging.WARNING),
        (ValueError("unexpected"), logging.ERROR),
    ],
)
def test_a_refused_event_is_logged_and_the_next_one_is_posted(
    error: Exception, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    events = Events()
    recorded = EventRecorder(events.create, background=True)
    events.error = error
    recorded.record(OWNER, note(1))
    recorded.close(SECONDS)
    (line,) = caplog.records
    assert line.levelno == level
    assert f"Planned for {OWNER.namespace}/{OWNER.name}" in line.getMessage()
    events.error = None
    recorded.record(OWNER, note(2))
    assert events.messages == ["message 2"]


def test_the_lease_is_kept_while_an_event_is_on_its_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rft_operator.operator.STOP_SECONDS", 0.3)
    monkeypatch.setattr("rft_operator.operator.STOP_EVENTS_SECONDS", 0.05)
    events = Events()
    events.answers.clear()
    cluster = Mock(spec=Cluster, create=events.create)
    operator = Operator(cluster, Settings("trainer:1"), Signs(60.0))
    for number in range(3):
        operator._recorder.record(OWNER, note(number))

    async def stop_twice() -> list[bool]:
        found = []
        for _ in range(2):
            await operator.stop()
            found.append(operator.is_idle)
        return found

    assert asyncio.run(stop_twice()) == [False, False], "an idle operator gives its Lease back"
    assert "1 Events are not posted yet" in caplog.text
    assert "2 Events are not posted, because" in caplog.text
    events.answers.set()
