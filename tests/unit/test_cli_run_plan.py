"""rft run makes a plan for this machine by the same rules as the operator.

So rft run refuses the same runs, and chooses the same micro-batch.
"""

from pathlib import Path
from typing import Any

import pytest

from rft_api.job import RFTJob
from rft_api.validation import parse
from rft_cli.errors import UserError
from rft_cli.local import snapshot
from rft_cli.local.device import Hardware, gpu_of_this_machine, kind_of_driver
from rft_planner.container import FORCE_ANNOTATION
from rft_planner.plan import plan
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
    on_gpu = Hardware("cuda", 1, kind_of_driver("NVIDIA H100 80GB HBM3, 81559"))
    assert snapshot.planned(job(model={"name": "org/secret"}), on_gpu) is None


def on_gpus(count: int, said: str = "NVIDIA H100 80GB HBM3, 81559\n") -> Hardware:
    return Hardware("cuda", count, kind_of_driver(said * count))


@pytest.mark.parametrize(
    ("said", "name", "gibibytes"),
    [
        ("NVIDIA H100 80GB HBM3, 81559\n", "nvidia-h100-80gb", 79.1),
        ("NVIDIA H100 80GB HBM3, 81559\nTesla T4, 15360\n", "nvidia-t4-16gb", 14.5),
        ("NVIDIA Future 9000, 102400\n", None, 97.0),
    ],
)
def test_the_kind_of_the_machines_gpus_is_read_from_the_driver(
    said: str, name: str | None, gibibytes: float
) -> None:
    kind = kind_of_driver(said)
    assert kind is not None
    assert kind.name == name
    assert kind.memory == pytest.approx(gibibytes * GIB)


def test_the_driver_is_asked_by_its_own_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_of_this_machine() is None, "without nvidia-smi the kind of GPU is not known"
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771'\n")
    program.chmod(0o755)
    found = gpu_of_this_machine()
    assert found is not None
    assert found.name == "nvidia-h200-141gb"
    program.write_text("#!/bin/sh\nexit 9\n")
    assert gpu_of_this_machine() is None


def test_what_a_driver_says_otherwise_is_no_kind() -> None:
    assert kind_of_driver("") is None
    assert kind_of_driver("No devices were found") is None


def test_a_run_on_a_gpu_has_the_plan_of_the_operator() -> None:
    wanted = {"accelerator": {"name": "nvidia-h100-80gb"}}
    asked = job(model={"name": "Qwen/Qwen2.5-7B"})
    made = snapshot.planned(asked, on_gpus(4))
    assert made == plan(job(model={"name": "Qwen/Qwen2.5-7B"}, resources=wanted).spec, "")
    assert made is not None
    assert (made.gpus, made.trainer_gpus) == (1, 1)
    assert made.sampler_memory_share is not None
    assert made.sampler_cache_memory is not None


def test_a_number_of_gpus_in_the_spec_is_planned_as_far_as_the_machine_has_them() -> None:
    asked = job(model={"name": "Qwen/Qwen3-0.6B"}, resources={"gpus": 4})
    made = snapshot.planned(asked, on_gpus(2))
    assert made is not None
    assert (made.gpus, made.sampler_gpus) == (2, 2)


def test_a_machine_with_too_few_gpus_is_refused_with_the_way_to_try_it() -> None:
    asked = job(model={"name": "Qwen/Qwen2.5-72B"})
    with pytest.raises(UserError, match=r"spec\.resources\.gpus: 2 to try it anyway"):
        snapshot.planned(asked, on_gpus(2))
    forced = job(model={"name": "Qwen/Qwen2.5-72B"}, resources={"gpus": 2})
    made = snapshot.planned(forced, on_gpus(2))
    assert made is not None
    assert (made.gpus, made.memory_parts) == (2, None)
