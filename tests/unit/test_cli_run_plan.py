"""rft run makes a plan for this machine's CPU, with the same refusals and micro-batch as in a cluster."""

from typing import Any

import pytest

from rft_api.job import RFTJob
from rft_api.validation import parse
from rft_cli.errors import UserError
from rft_cli.local import snapshot
from rft_cli.local.device import Hardware
from rft_planner.container import FORCE_ANNOTATION
from rft_planner.sizes import GIB, mib, quantity
from tests.manifests import manifest

CPU = Hardware("cpu", 0)
MODEL = {"name": "HuggingFaceTB/SmolLM2-360M"}
SHORT: dict[str, Any] = {"training": {"maxContextLength": 256}, "sampling": {"maxTokens": 128}}


@pytest.fixture(autouse=True)
def machine_of_one_tebibyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "total_memory", lambda: 1024 * int(GIB))


def job(memory: str | None = None, **spec: Any) -> RFTJob:
    resources = {"memory": memory} if memory else {}
    return parse(manifest(**{"model": MODEL, "resources": resources, **SHORT, **spec}))


def test_a_run_on_the_cpu_is_planned_though_the_job_names_no_device() -> None:
    made = snapshot.planned(job(), CPU)
    assert made is not None
    assert (made.device, made.gpus, made.micro_batch_tokens) == ("cpu", 0, 1024)


def test_a_machine_with_less_than_is_comfortable_gets_a_smaller_micro_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = snapshot.planned(job(), CPU)
    assert whole is not None
    between = (quantity(whole.memory or "") + quantity(whole.least_memory or "")) / 2
    monkeypatch.setattr(snapshot, "total_memory", lambda: int(between))
    made = snapshot.planned(job(), CPU)
    assert made is not None
    assert (made.memory, made.forced) == (mib(int(between)), False)
    assert 256 <= (made.micro_batch_tokens or 0) < 1024


def test_memory_that_does_not_hold_the_run_is_refused_unless_forced() -> None:
    with pytest.raises(UserError, match="is less than the"):
        snapshot.planned(job("1Gi"), CPU)
    given = job("1Gi")
    metadata = given.metadata.model_copy(update={"annotations": {FORCE_ANNOTATION: "true"}})
    made = snapshot.planned(given.model_copy(update={"metadata": metadata}), CPU)
    assert made is not None
    assert made.forced


def test_what_cannot_be_planned_runs_without_a_plan() -> None:
    assert snapshot.planned(job(model={"name": "org/secret"}), CPU) is None
    assert snapshot.planned(job(), Hardware("cuda", 1)) is None
