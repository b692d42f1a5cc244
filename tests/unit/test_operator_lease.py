"""The Lease never has two holders, in any order of reads, renewals, pauses and lost responses."""

import copy
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_operator.cluster import Cluster, ClusterError, Conflict, NotFound, NotLeading, Unavailable
from rft_operator.leadership import LEADER_LABEL, Leadership
from rft_operator.lease import LeaseRecord, LeaseStep, Seen, Terms, decide, look, record, written

TERMS = Terms()
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def seen(holder: str, since: float = 0.0) -> Seen:
    return Seen(LeaseRecord(holder, TERMS.duration, "7"), since)


@pytest.mark.parametrize(
    ("there", "now", "step"),
    [
        (None, 0, LeaseStep.ACQUIRE),
        (seen(""), 0, LeaseStep.ACQUIRE),
        (seen("me"), 0, LeaseStep.ACQUIRE),
        (seen("other"), 14.9, LeaseStep.WAIT),
        (seen("other"), 15, LeaseStep.ACQUIRE),
    ],
    ids=["none", "given back", "an answer that was lost", "held", "not renewed for its duration"],
)
def test_a_free_or_expired_lease_is_acquired(there: Seen | None, now: float, step: LeaseStep) -> None:
    assert decide(there, "me", None, now, TERMS) is step


@pytest.mark.parametrize(
    ("there", "now", "step"),
    [
        (seen("me"), 9.9, LeaseStep.RENEW),
        (seen("me"), 10, LeaseStep.LOST),
        (seen("other"), 1, LeaseStep.LOST),
        (seen(""), 1, LeaseStep.LOST),
        (None, 1, LeaseStep.LOST),
    ],
    ids=["in time", "too late", "of another", "of nobody", "deleted"],
)
def test_a_holder_renews_only_its_own_lease(there: Seen | None, now: float, step: LeaseStep) -> None:
    assert decide(there, "me", 0.0, now, TERMS) is step


def test_a_lease_is_valid_for_the_duration_that_its_holder_wrote() -> None:
    there = Seen(LeaseRecord("other", 60, "7"), 0.0)
    assert decide(there, "me", None, 59, TERMS) is LeaseStep.WAIT


def test_a_records_age_counts_from_our_first_read_of_it() -> None:
    before = seen("other", since=3)
    assert look(before, LeaseRecord("other", 15, "7"), 9) == before
    renewed = LeaseRecord("other", 15, "8")
    assert look(before, renewed, 9) == Seen(renewed, 9)


def test_transitions_are_counted_and_other_fields_are_kept() -> None:
    first = {"metadata": {"resourceVersion": "1"}, "spec": written(None, "a", TERMS, NOON)}
    assert first["spec"]["leaseTransitions"] == 0
    again = written(first, "a", TERMS, NOON.replace(hour=13))
    assert again["acquireTime"] == "2026-11-23T12:00:00.000000Z"
    assert again["renewTime"] == "2026-11-23T13:00:00.000000Z"
    other = written({"spec": {**again, "preferredHolder": "c"}}, "b", TERMS, NOON)
    assert (other["leaseTransitions"], other["preferredHolder"]) == (1, "c")
    assert record({"metadata": {"resourceVersion": "9"}, "spec": other}, TERMS) == LeaseRecord("b", 15, "9")


def test_deadline_and_retry_keep_the_proportions_of_the_defaults() -> None:
    assert (TERMS.duration, TERMS.deadline, TERMS.retry) == (15, 10, 2)
    assert Terms(60).deadline == 40


class Server(Cluster):
    """A fake API server for one Lease. ``mood`` says how it answers:

    - "good": all requests succeed.
    - "away": every request fails.
    - "deaf": reads fail. A write is stored, but its response is lost.
    """

    def __init__(self) -> None:
        self.there: dict[str, Any] | None = None
        self.version = 0
        self.mood = "good"

    def lease(self, namespace: str, name: str) -> dict[str, Any]:
        if self.mood != "good":
            raise Unavailable(0, "away")
        if self.there is None:
            raise NotFound(404, f"{namespace}/{name}")
        return copy.deepcopy(self.there)

    def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        return self._store(manifest, None)

    def replace_lease(self, manifest: dict[str, Any]) -> dict[str, Any]:
        return self._store(manifest, manifest["metadata"]["resourceVersion"])

    def _store(self, manifest: dict[str, Any], version: str | None) -> dict[str, Any]:
        if self.mood == "away":
            raise Unavailable(0, "away")
        if version != (self.there and self.there["metadata"]["resourceVersion"]):
            raise Conflict(409, "changed")
        self.version += 1
        metadata = {**manifest["metadata"], "resourceVersion": str(self.version)}
        self.there = {**copy.deepcopy(manifest), "metadata": metadata}
        if self.mood == "deaf":
            raise Unavailable(0, "no answer")
        return copy.deepcopy(self.there)


class Machine:
    """A process that wants the Lease. Its clock may be wrong.

    ``time`` is the true time. At this time the clock shows ``offset + rate * time`` seconds.
    """

    def __init__(self, server: Server, name: str, offset: float = 0.0, rate: float = 1.0) -> None:
        self.time = 0.0
        self.rate = rate
        self.dead = ""
        self.leadership = Leadership(
            server, "ns", "lease", name, TERMS, self._end, lambda: offset + rate * self.time
        )

    def _end(self, why: str) -> None:
        self.dead = why

    def turn(self) -> None:
        """Renew or read the Lease once, as the thread of ``Leadership`` does."""
        try:
            step = self.leadership.turn()
        except ClusterError:
            return
        if step is LeaseStep.LOST:
            self.dead = "lost"

    def may_write(self) -> bool:
        return not self.dead and self.leadership.remaining() > 0


TURNS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from([0.0, 0.1, 1.0, 2.0, 2.0, 4.9, 9.0, 16.0]),
        st.sampled_from(["good", "good", "good", "away", "deaf"]),
    ),
    min_size=20,
    max_size=40,
)


@settings(max_examples=60)
@given(TURNS, st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), st.floats(0.97, 1.03))
def test_never_can_two_processes_write_at_the_same_time(
    turns: list[tuple[int, float, str]], offsets: tuple[float, float], rate: float
) -> None:
    server = Server()
    machines = [Machine(server, "m0", offsets[0], rate), Machine(server, "m1", offsets[1])]
    for number, (who, seconds, mood) in enumerate(turns):
        for machine in machines:
            machine.time += seconds
        server.mood = mood
        machines[who].turn()
        assert sum(machine.may_write() for machine in machines) <= 1
        if machines[who].dead:
            machines[who] = Machine(server, f"m{who}-{number}", offsets[who], machines[who].rate)


def test_after_a_crash_the_next_holder_waits_for_the_whole_duration() -> None:
    server = Server()
    first, second = Machine(server, "a"), Machine(server, "b", offset=1e5)
    first.turn()
    for _ in range(7):
        second.turn()
        assert not second.may_write()
        second.time += TERMS.retry
    second.time += 1
    second.turn()
    assert second.may_write()


def test_after_a_release_the_next_holder_starts_at_once() -> None:
    server = Server()
    first, second = Machine(server, "a"), Machine(server, "b")
    first.turn()
    second.turn()
    assert not second.may_write()
    first.leadership.release()
    assert not first.may_write()
    second.turn()
    assert second.may_write()


def test_a_renewal_with_a_lost_response_does_not_lose_the_lease() -> None:
    server = Server()
    one = Machine(server, "a")
    one.turn()
    one.time, server.mood = 4, "deaf"
    one.turn()
    one.time, server.mood = 8, "good"
    one.turn()
    assert one.leadership.remaining() == TERMS.deadline
    assert not one.dead


@pytest.mark.parametrize("fate", ["deleted", "taken", "too late"])
def test_a_holder_that_loses_the_lease_ends(fate: str) -> None:
    server = Server()
    one = Machine(server, "a")
    one.turn()
    if fate == "deleted":
        server.there = None
    elif fate == "taken":
        server.there = server.replace_lease(
            {**server.lease("ns", "lease"), "spec": {"holderIdentity": "thief"}}
        )
    else:
        one.time = TERMS.deadline
    one.turn()
    one.turn()
    assert one.dead
    assert not one.may_write()


def test_a_process_whose_renewals_hang_ends_at_the_deadline() -> None:
    server = Server()
    one = Machine(server, "a")
    one.turn()
    one.time = TERMS.deadline + 1
    one.leadership._guard()
    assert "could not be renewed for 10 s" in one.dead


def test_acquire_raises_when_the_api_server_refuses() -> None:
    class Forbidding(Server):
        def lease(self, namespace: str, name: str) -> dict[str, Any]:
            raise ClusterError(403, f"leases {name} is forbidden in {namespace}")

    with pytest.raises(ClusterError, match="403"):
        Machine(Forbidding(), "a").leadership.acquire()


def test_acquire_waits_for_an_unreachable_api_server() -> None:
    class Late(Server):
        looks = 0

        def lease(self, namespace: str, name: str) -> dict[str, Any]:
            self.looks += 1
            self.mood = "away" if self.looks < 3 else "good"
            return super().lease(namespace, name)

    server = Late()
    Leadership(server, "ns", "lease", "a", Terms(0.015), lost=pytest.fail).acquire()
    assert server.lease("ns", "lease")["spec"]["holderIdentity"] == "a"


def test_a_pod_loses_an_old_label_before_it_waits_and_gets_one_with_the_lease() -> None:
    said: list[object] = []

    class Labelling(Server):
        def label_pod(self, namespace: str, name: str, labels: Mapping[str, str | None]) -> None:
            if not said:
                said.append("away")
                raise Unavailable(0, "away")
            said.append((namespace, name, labels))

        def replace_lease(self, manifest: dict[str, Any]) -> dict[str, Any]:
            said.append("written")
            return super().replace_lease(manifest)

    server = Labelling()
    server.there = server.create({"metadata": {}, "spec": {"holderIdentity": ""}})
    one = Leadership(server, "ns", "lease", "a", Terms(0.015), lost=pytest.fail, pod="pod")
    one.waiting = lambda: said.append("ready")
    one.acquire()
    assert said == [
        "away",
        ("ns", "pod", {LEADER_LABEL: None}),
        "ready",
        "written",
        ("ns", "pod", {LEADER_LABEL: "true"}),
    ]


def test_without_the_lease_a_cluster_reads_but_does_not_write() -> None:
    class Configuration:
        host = "http://127.0.0.1:9"  # the discard port: nothing listens there
        verify_ssl, ssl_ca_cert, cert_file, key_file = True, None, None, None
        proxy = tls_server_name = assert_hostname = no_proxy = proxy_headers = None
        retries = socket_options = ca_cert_data = None
        disable_strict_ssl_verification = False

        def auth_settings(self) -> dict[str, Any]:
            return {}

    cluster = Cluster(Configuration())
    cluster.fence = lambda: 0.0
    with pytest.raises(NotLeading, match="PATCH"):
        cluster.merge_data("ConfigMap", "ns", "name", "1", {})
    with pytest.raises(NotLeading, match="DELETE"):
        cluster.delete_child("ns", "name", "uid")
    with pytest.raises(Unavailable):
        cluster.lease("ns", "name")
