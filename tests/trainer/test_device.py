"""The device on which a run computes, and reproducible gradients in deterministic mode.

A run uses the GPUs of its plan. It uses the CPU if the GPUs are simulated or the plan has no GPUs.
"""

from pathlib import Path

import pytest
import torch

from rft_api.effective import effective
from rft_api.status import Plan
from rft_api.validation import parse
from rft_run.config import JobIdentity, RunConfig
from rft_run.errors import ConfigurationError
from rft_run.exit_codes import ExitCode
from rft_trainer.attempt import attempt
from rft_trainer.runtime import machine
from rft_trainer.runtime.device import on_this_machine, set_deterministic
from tests.manifests import manifest

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def config(tmp_path: Path, device: str = "cuda", gpus: int = 2) -> RunConfig:
    spec = parse(manifest()).spec
    return RunConfig.model_validate(
        {
            "job": JobIdentity(name="tiny", namespace="default", uid="uid"),
            "spec": spec,
            "effective": effective(spec, "uid"),
            "plan": Plan(gpus=gpus, micro_batch_tokens=16_384, sampler_gpus=1),
            "device": device,
            "gpus": gpus,
            "run_dir": str(tmp_path),
            "dataset_path": str(tmp_path / "rows.jsonl"),
        },
        by_name=True,
    )


@without_gpu
def test_gpus_that_torch_does_not_see_are_reported_with_possible_causes(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="needs 2 GPUs, but torch finds no GPU") as refusal:
        on_this_machine(config(tmp_path), {})
    for said in ("torch.cuda.init()", "spec.template.image", "device plugin", "RFT_DEVICE=cpu"):
        assert said in str(refusal.value)


@without_gpu
def test_missing_gpus_end_the_attempt_with_the_exit_code_for_configuration(tmp_path: Path) -> None:
    assert attempt(config(tmp_path), lambda: False) == ExitCode.CONFIGURATION


def test_with_simulated_gpus_the_run_uses_the_cpu_without_a_plan(tmp_path: Path) -> None:
    found = on_this_machine(config(tmp_path), {"RFT_DEVICE": "cpu"})
    assert (found.device, found.gpus, found.plan) == ("cpu", 0, None)


def test_a_run_on_the_cpu_keeps_its_plan(tmp_path: Path) -> None:
    given = config(tmp_path, "cpu", 0)
    assert on_this_machine(given, {}) == on_this_machine(given, {"RFT_DEVICE": "cpu"}) == given


def test_an_unknown_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="RFT_DEVICE=tpu"):
        on_this_machine(config(tmp_path), {"RFT_DEVICE": "tpu"})


def test_gradients_of_a_repeated_index_are_reproducible_in_deterministic_mode() -> None:
    """All rollouts of a prompt read the hidden state of the prompt's last token, so its index is repeated."""
    torch.set_num_threads(4)
    draw = torch.Generator().manual_seed(0)
    index_N = torch.randint(0, 4, (4096,), generator=draw)
    upstream_N_H = torch.randn(4096, 256, generator=draw)

    def gradient() -> torch.Tensor:
        hidden_P_H = torch.ones(4, 256, requires_grad=True)
        hidden_P_H[index_N].backward(upstream_N_H)
        assert hidden_P_H.grad is not None
        return hidden_P_H.grad

    set_deterministic(False, "cpu")
    loose = {gradient().numpy().tobytes() for _ in range(30)}
    set_deterministic(True, "cpu")
    assert len({gradient().numpy().tobytes() for _ in range(30)}) == 1
    if machine.affine_cores() > 1:  # with one core a thread ends before the next begins
        assert len(loose) > 1, (
            "torch gave equal results even without deterministic mode, so this test proves nothing"
        )
