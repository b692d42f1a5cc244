"""Several batches are in the sampler at the same time. Each is sampled by one version of the adapter."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_graders.types import ScoredBatch
from rft_run.folder import RunFolder
from rft_run.state import Position
from rft_trainer.data.training import Batch
from rft_trainer.publish import Publisher
from rft_trainer.rollout.engine import BASE_NAME, AdapterVersion
from rft_trainer.rollout.groups import SampledBatch
from rft_trainer.rollout.prefetch import Ahead, Prefetch, SamplingState, may_follow

SECONDS = 60


@pytest.mark.parametrize(
    ("unanswered", "largest", "slots", "begins"),
    [
        (64, 128, 256, True),
        (65, 128, 256, False),
        (0, 1, 256, True),
        (1, 1, 256, False),
        (256, 1024, 256, False),
        (255, 1024, 256, True),
    ],
)
def test_a_batch_begins_when_at_most_half_of_the_largest_is_unanswered_and_slots_are_free(
    unanswered: int, largest: int, slots: int, begins: bool
) -> None:
    assert may_follow(unanswered, largest, slots) == begins


@dataclass
class Sampler:
    """A stand-in for the engine. Like vLLM, it refuses requests for adapters that are not loaded."""

    loaded: list[str] = field(default_factory=lambda: [BASE_NAME])
    most: int = 0
    """The largest number of adapters that were loaded at the same time."""
    reloads: list[Path] = field(default_factory=list)
    """The folders that the sampler would load after a restart."""

    def use_adapter(self, adapter: AdapterVersion, kept: Sequence[AdapterVersion]) -> None:
        assert {one.name for one in kept} <= set(self.loaded), "only a loaded adapter can be kept"
        self.loaded = [BASE_NAME, *(one.name for one in kept), adapter.name]
        self.reloads = [one.path for one in (*kept, adapter)]
        assert len(self.loaded) == len(set(self.loaded))
        self.most = max(self.most, len(self.loaded) - 1)


class Versions:
    """A stand-in for the policy, whose versions are empty folders."""

    def save_version(self, folder: Path, number: int, _check: Callable[[], None]) -> AdapterVersion:
        path = folder / f"v{number:06d}"
        path.mkdir(parents=True)
        return AdapterVersion(path.name, path)


@dataclass
class Made:
    """A batch that was sampled: its first row, and the version of the adapter that sampled it."""

    row: int
    version: int


class Simulated:
    """Steps of a run: the real prefetch and publisher, with a sampler that only counts completions."""

    def __init__(self, ahead: int, slots: int | None, folder: Path) -> None:
        self.ahead, self.engine = ahead, Sampler()
        self.publisher = Publisher(
            Versions(), self.engine, RunFolder(folder), lambda: None, ahead  # type: ignore[arg-type]
        )  # fmt: skip
        self.prefetch = Prefetch(ahead, slots)
        self.saved = 0
        self.news = threading.Condition()
        self.running = self.most_running = 0
        self.late: dict[int, tuple[int, int]] = {}
        """For the batch of a row: how many of its completions come late, and the version of the adapter that
        must be saved before they come.
        """
        self.refills: dict[int, int] = {}
        """For the batch of a row: the number of further rows that it takes, in a second round of sampling."""
        self.finished: list[int] = []

    def publish(self) -> None:
        with self.news:
            self.saved += 1
            self.publisher.save(self.saved)
            self.news.notify_all()

    def sample(self, position: Position, state: SamplingState) -> Ahead:
        row, count = position.offset, 8
        late, version = self.late.get(row, (0, 0))
        refills = self.refills.get(row, 0)
        after = Position(1, row + 1 + refills)
        with self.publisher.pinned() as pin:
            with self.news:
                self.running += 1
                self.most_running = max(self.most_running, self.running)
            if not refills:
                state.ends_at(after)
            state.ask(count)
            for number in range(count):
                if number == count - late:
                    with self.news:
                        assert self.news.wait_for(lambda: self.saved >= version, SECONDS)
                assert pin.adapter in self.engine.loaded, "the sampler would refuse the request"
                state.answer()
            if refills:
                state.ends_at(after)
                state.ask(refills)
                for _ in range(refills):
                    assert pin.adapter in self.engine.loaded, "the sampler would refuse the request"
                    state.answer()
            with self.news:
                self.running -= 1
                self.finished.append(row)
                self.news.notify_all()
        sampled = SampledBatch([], ScoredBatch([]), 0.0, 0.0, adapter_version=pin.version)
        return Ahead(Batch([], after, 0), sampled)

    def run(self, steps: int) -> list[Made]:
        made: list[Made] = []
        position = Position(1, 0)
        with self.prefetch:
            for _ in range(steps):
                batch = self.prefetch.batch
                if batch is None:
                    alone = self.sample(position, SamplingState(threading.Condition()))
                    assert alone.sampled is not None
                    batch, sampled = alone.batch, alone.sampled
                else:
                    taken = self.prefetch.take()
                    assert taken is not None
                    sampled = taken
                made.append(Made(position.offset, sampled.adapter_version))
                position = batch.after
                while self.prefetch.begun < self.ahead:
                    self.prefetch.begin(position, self.sample)
                self.publish()
        return made


@settings(max_examples=25, deadline=None)
@given(
    ahead=st.integers(2, 4),
    late=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4)), max_size=12),
    refills=st.lists(st.integers(0, 2), max_size=12),
)
def test_no_batch_is_too_old_or_of_two_versions_and_rows_keep_their_order(
    tmp_path_factory: pytest.TempPathFactory,
    ahead: int,
    late: list[tuple[int, int]],
    refills: list[int],
) -> None:
    run = Simulated(ahead, 256, tmp_path_factory.mktemp("run"))
    run.refills = dict(enumerate(refills))
    # A batch may wait for every version that exists before its own step, so never for itself.
    rows = [0]
    while len(rows) < 12:
        rows.append(rows[-1] + 1 + run.refills.get(rows[-1], 0))
    run.late = {
        row: (count, max(0, step - back))
        for step, (row, (count, back)) in enumerate(zip(rows, late, strict=False))
    }
    made = run.run(12)
    assert [one.row for one in made] == rows
    lags = [step - one.version for step, one in enumerate(made)]
    assert all(0 <= lag <= ahead for lag in lags)
    assert run.most_running <= ahead
    assert run.engine.most <= ahead


def test_the_next_batches_end_before_the_last_completions_of_the_one_before(tmp_path: Path) -> None:
    run = Simulated(4, 256, tmp_path)
    run.late = {1: (4, 1)}  # half of row 1 comes after the first update, in which rows 2 to 4 are sampled
    publish = run.publish

    def publish_late() -> None:
        with run.news:
            assert run.news.wait_for(lambda: 4 in run.finished, SECONDS)
        publish()

    run.publish = publish_late  # type: ignore[method-assign]
    run.run(3)
    assert run.finished.index(4) < run.finished.index(1)


@pytest.mark.parametrize(
    ("slots", "late", "known", "begins"),
    [
        (256, 4, True, True),
        (256, 5, True, False),
        (256, 0, False, False),
        (256, 8, True, False),
        (4, 4, True, False),
        (None, 0, True, False),
    ],
)
def test_a_batch_waits_for_free_slots_half_of_the_answers_and_its_first_row(
    slots: int | None, late: int, known: bool, begins: bool
) -> None:
    prefetch = Prefetch(4, slots)
    before = SamplingState(prefetch._changed)
    prefetch._running.append(before)
    assert not prefetch._may_begin(before)
    before.ask(8)
    for _ in range(8 - late):
        before.answer()
    if known:
        before.ends_at(Position(1, 1))
    assert prefetch._may_begin(before) == begins
    other = SamplingState(prefetch._changed)
    prefetch._running.append(other)
    other.ask(1)
    assert prefetch._may_begin(before) == (begins and late < 4)
    prefetch._leave(before)
    assert prefetch._may_begin(before)


def test_a_paused_sampler_is_idle_and_batches_go_on_afterwards() -> None:
    prefetch = Prefetch(3, 256)
    go, ends = threading.Event(), list[Position]()

    def once_paused() -> None:
        while not prefetch._paused:
            time.sleep(0.001)
        go.set()

    def sample(position: Position, state: SamplingState) -> Ahead:
        after = Position(1, position.offset + 1)
        state.ends_at(after)
        state.ask(2)
        state.answer()
        if position.offset == 0:
            assert go.wait(SECONDS)
        state.answer()
        ends.append(after)
        return Ahead(Batch([], after, 0), None)

    with prefetch:
        for _ in range(2):
            prefetch.begin(Position(1, 0), sample)
        waiting = threading.Thread(target=once_paused)
        waiting.start()
        with prefetch.paused():
            idle = list(ends)
            prefetch.begin(Position(), sample)
            assert [one.offset for one in idle] in ([1], [2, 1], [1, 2])
            assert ends == idle
        prefetch.wait()
        waiting.join()
    assert sorted(one.offset for one in ends) == [1, 2, 3]


def test_after_an_error_no_further_batch_begins_and_each_has_that_error() -> None:
    prefetch = Prefetch(3, 256)
    begun, go = list[int](), threading.Event()

    def sample(position: Position, state: SamplingState) -> Ahead:
        begun.append(position.offset)
        after = Position(1, position.offset + 1)
        state.ends_at(after)
        state.ask(1)
        state.answer()
        if position.offset == 0:
            assert go.wait(SECONDS)
            raise OSError("gone")
        return Ahead(Batch([], after, 0), None)

    with pytest.raises(OSError, match="gone"), prefetch:  # noqa: PT012
        prefetch.begin(Position(1, 0), sample)
        prefetch.begin(Position(1, 0), sample)
        prefetch._begun[1][0].result(SECONDS)
        go.set()
        assert prefetch._begun[0][0].exception(SECONDS) is not None
        prefetch.begin(Position(1, 0), sample)
        assert isinstance(prefetch._begun[2][0].exception(SECONDS), OSError)
        assert begun == [0, 1]
        prefetch.take()
    assert prefetch.failed


def test_the_end_of_a_batch_does_not_wait_for_a_version_that_is_loaded(tmp_path: Path) -> None:
    run = Simulated(2, 256, tmp_path)
    loading, go = threading.Event(), threading.Event()
    use = run.engine.use_adapter

    def slow(adapter: Any, kept: Any) -> None:
        loading.set()
        assert go.wait(SECONDS)
        use(adapter, kept)

    with run.publisher.pinned() as pin:
        assert (pin.version, pin.adapter) == (0, BASE_NAME)
        run.engine.use_adapter = slow  # type: ignore[method-assign]
        run.publish()
        loader = threading.Thread(target=run.publisher.load)
        loader.start()
        assert loading.wait(SECONDS)
    assert run.publisher._pins == []
    go.set()
    loader.join()
    with run.publisher.pinned() as pin:
        assert (pin.version, pin.adapter) == (1, "v000001")


def test_the_versions_that_a_restarted_sampler_loads_stay_until_it_has_newer_ones(tmp_path: Path) -> None:
    run = Simulated(2, 256, tmp_path)
    run.publish()
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(run.publisher.pinned())
        run.publish()
        second.enter_context(run.publisher.pinned())
        first.close()
        run.publish()
        run.publish()  # the batch with version 1 is trained; the one with version 2 is still sampled
        assert [path.name for path in run.engine.reloads] == ["v000001", "v000002"]
        assert all(path.is_dir() for path in run.engine.reloads)
    run.publisher.load()
    run.publish()
    folders = sorted(path.name for path in RunFolder(tmp_path).adapters.iterdir())
    assert folders == ["v000003", "v000004", "v000005"]
