"""The checks of ``bench.gpu_check`` pass with right kernels and fail with wrong ones. They run on a CPU."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.cpu_kernels import ON_CPU, by_sequence
from bench.gpu_check import CHECKS, Machine, check_blocks, check_sequences, line
from rft_trainer.learn.attention import Kernels

HERE = Machine(torch.device("cpu"), length=256, head_dim=16, repeats=1, kernels=ON_CPU)


@pytest.mark.parametrize(("name", "check"), CHECKS, ids=[name for name, _ in CHECKS])
def test_a_check_passes_with_kernels_that_are_right(name: str, check: Any) -> None:
    found = line(name, check, HERE)
    assert found["ok"], found
    assert found["check"] == name


def test_a_kernel_that_looks_across_rows_fails_its_check() -> None:
    def across(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, *others: Any) -> Tensor:
        return by_sequence(query, key, value, starts[[0, -1]], len(query), *others[1:])

    machine = replace(HERE, kernels=Kernels(ON_CPU.blocks, across))
    found = line("attention of plain rows", check_sequences, machine)
    assert not found["ok"]
    assert min(found["errors"]["None"]) > 0.1


def test_a_kernel_that_cannot_run_fails_its_check_and_says_why() -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no kernel image is available for execution on the device")

    found = line("attention of shared rows", check_blocks, replace(HERE, kernels=Kernels(broken)))
    assert not found["ok"]
    assert "no kernel image" in found["error"]
