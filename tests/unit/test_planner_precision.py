"""On GPUs a run's dtype is bfloat16.

On a CPU the dtype that the job sets is used. If the job sets none, the dtype is float32 in deterministic
mode. Without deterministic mode it depends on the machine.
"""

from pathlib import Path
from typing import Any

import pytest

from rft_api.parameters import Dtype, Training
from rft_api.status import Device, Plan
from rft_api.validation import parse
from rft_planner import precision
from rft_planner.plan import plan
from rft_planner.precision import dtype_of, fast_cpu_dtype
from rft_planner.sizes import quantity
from tests.manifests import manifest


def planned(cpu_dtype: Dtype = "float32", gpus: int = 0, **training: Any) -> Plan:
    document = manifest(
        model={"name": "HuggingFaceTB/SmolLM2-135M"}, resources={"gpus": gpus}, training=training
    )
    return plan(parse(document).spec, "uid", cpu_dtype=cpu_dtype)


@pytest.mark.parametrize(
    ("training", "device", "machine", "expected"),
    [
        ({}, "cpu", "float32", "float32"),
        ({}, "cpu", "bfloat16", "bfloat16"),
        ({"deterministic": True}, "cpu", "bfloat16", "float32"),
        ({"cpuDtype": "bfloat16"}, "cpu", "float32", "bfloat16"),
        ({"cpuDtype": "float32"}, "cpu", "bfloat16", "float32"),
        ({}, "cuda", "float32", "bfloat16"),
        ({"deterministic": True, "cpuDtype": "float32"}, "cuda", "float32", "bfloat16"),
    ],
)
def test_the_job_takes_precedence_then_deterministic_mode_then_the_machine(
    training: dict[str, Any], device: Device, machine: Dtype, expected: Dtype
) -> None:
    assert dtype_of(Training.model_validate(training), device, machine) == expected


def test_a_plan_has_the_dtype_and_on_a_cluster_it_is_float32() -> None:
    assert planned().dtype == "float32"
    assert planned("bfloat16").dtype == "bfloat16"
    assert planned("bfloat16", deterministic=True).dtype == "float32"
    assert planned(cpuDtype="bfloat16").dtype == "bfloat16"
    assert planned(gpus=1).dtype == "bfloat16"
    assert any("float32 (training.cpuDtype)" in note for note in planned().notes or [])


def test_bfloat16_needs_less_memory_and_half_for_the_weights() -> None:
    wide, narrow = planned(cpuDtype="float32"), planned(cpuDtype="bfloat16")
    assert quantity(narrow.memory or "") < quantity(wide.memory or "")
    assert quantity(narrow.least_memory or "") < quantity(wide.least_memory or "")
    sizes = [
        {part.name: part.mebibytes for part in made.memory_parts or []}["sampling: base weights"]
        for made in (wide, narrow)
    ]
    assert sizes[0] == pytest.approx(2 * sizes[1], rel=0.001)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx2 avx512f", "float32"),
        ("fpu avx512f avx512_bf16", "bfloat16"),
        ("amx_bf16 amx_tile", "bfloat16"),
        ("avx512_bf16x", "float32"),
    ],
)
def test_bfloat16_is_chosen_if_the_processor_has_instructions_for_it(
    tmp_path: Path, flags: str, expected: Dtype
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert fast_cpu_dtype({}, tmp_path / "cpuinfo") == expected
    assert fast_cpu_dtype({}, tmp_path / "not-there") == "float32"


def test_the_variable_takes_precedence_and_a_wrong_value_is_refused() -> None:
    assert fast_cpu_dtype({precision.VARIABLE: "bfloat16"}) == "bfloat16"
    assert fast_cpu_dtype({precision.VARIABLE: "float32"}) == "float32"
    with pytest.raises(ValueError, match="RFT_CPU_DTYPE=bf16: must be one of float32, bfloat16"):
        fast_cpu_dtype({precision.VARIABLE: "bf16"})
