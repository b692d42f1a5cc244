"""GPU-hours and cost in the status: during a run the expected total, at its end the real total."""

from pathlib import Path

import pytest

from rft_api.effective import effective
from rft_api.status import RunStatus
from rft_api.validation import parse
from rft_run.config import JobIdentity, RunConfig
from rft_run.state import RunState
from rft_run.steps import StepRecord
from rft_trainer.monitors.progress import Status
from tests.manifests import manifest


def record(step: int, seconds: float) -> StepRecord:
    return StepRecord(
        step=step,
        reward=0.5,
        graders={"right": 0.5},
        kl=None,
        step_seconds=seconds,
        phases={"rollout": seconds},
        loss=1.0,
        tokens_per_second=1.0,
    )


def status(folder: Path, gpus: int, price: float | None) -> Status:
    resources = {} if price is None else {"pricePerGpuHour": price}
    spec = parse(manifest(resources=resources)).spec
    return Status(
        RunConfig(
            job=JobIdentity(name="job", namespace="default", uid="uid"),
            spec=spec,
            effective=effective(spec, "uid"),
            gpus=gpus,
            run_dir=str(folder),
            dataset_path=str(folder / "rows.jsonl"),
        ),
        attempt=1,
    )


def after(told: Status, step: int, seconds: float, gpus: int = 2) -> RunStatus:
    state = RunState(step=step, gpu_seconds=gpus * step * seconds)
    return told.snapshot(state, [record(number, seconds) for number in range(1, step + 1)])


def test_the_total_of_hours_and_cost_follows_from_the_speed_so_far(tmp_path: Path) -> None:
    told = status(tmp_path, gpus=2, price=3.0)
    told.total_steps = 100
    usage = after(told, 25, seconds=36.0).usage
    assert usage is not None
    assert usage.cost == pytest.approx(3 * 2 * 25 * 36 / 3600)
    assert usage.expected_gpu_hours == pytest.approx(2 * 100 * 36 / 3600)
    assert usage.expected_cost == pytest.approx(3 * 2 * 100 * 36 / 3600)


def test_nothing_is_expected_before_the_first_step_or_without_a_total(tmp_path: Path) -> None:
    told = status(tmp_path, gpus=2, price=3.0)
    unbounded = after(told, 25, seconds=36.0).usage
    assert unbounded is not None
    assert (unbounded.expected_gpu_hours, unbounded.expected_cost) == (None, None)
    fresh = status(tmp_path, gpus=2, price=3.0)
    fresh.total_steps = 100
    first = after(fresh, 0, seconds=36.0).usage
    assert first is not None
    assert (first.expected_gpu_hours, first.expected_cost) == (None, None)


def test_at_the_end_the_expected_is_what_was_used(tmp_path: Path) -> None:
    told = status(tmp_path, gpus=2, price=3.0)
    told.total_steps, told.stage = 100, "finished"
    run = after(told, 60, seconds=36.0)
    assert run.usage is not None
    assert run.usage.expected_gpu_hours == pytest.approx(run.usage.gpu_seconds / 3600)
    assert run.usage.expected_cost == pytest.approx(run.usage.cost)
    assert run.progress.eta_seconds == 0


def test_without_gpus_or_a_price_there_is_no_figure_for_them(tmp_path: Path) -> None:
    on_cpu = status(tmp_path, gpus=0, price=None)
    on_cpu.total_steps = 10
    run = after(on_cpu, 5, seconds=2.0, gpus=0)
    assert run.usage is not None
    assert (run.usage.cost, run.usage.expected_gpu_hours, run.usage.expected_cost) == (None, None, None)
    assert run.progress.eta_seconds == 10.0
