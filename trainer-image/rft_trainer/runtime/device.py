"""The device of a run (the plan's, or the CPU where GPUs are simulated), and reproducible results."""

import os
from collections.abc import Mapping

import torch

from rft_run.config import RunConfig
from rft_run.errors import ConfigurationError

DEVICE_VARIABLE = "RFT_DEVICE"
"""``cpu``: compute on the CPU although the pod requests GPUs. For test clusters with simulated GPUs."""


def on_this_machine(config: RunConfig, env: Mapping[str, str] = os.environ) -> RunConfig:
    """Return the configuration, adapted to the devices of this machine.

    With ``RFT_DEVICE=cpu`` the run computes on the CPU. Its plan, which is made for GPUs, is then dropped:
    the GPUs were only for the scheduler.

    Raises:
        ConfigurationError: if torch does not see the GPUs of the plan, or the variable has another value.
    """
    asked = env.get(DEVICE_VARIABLE, "")
    if asked not in ("", "cpu"):
        raise ConfigurationError(
            f"{DEVICE_VARIABLE}={asked}: the only valid value is cpu; remove the variable"
        )
    if config.device != "cuda":
        return config
    if asked == "cpu":
        return config.model_copy(update={"device": "cpu", "gpus": 0, "plan": None})
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if seen < config.gpus:
        raise ConfigurationError(
            f"the plan says cuda with {config.gpus} GPU{'s' if config.gpus > 1 else ''}, but torch sees"
            f" {seen or 'no GPU'}: the image must have torch for GPUs (spec.template.image), the node a"
            f" driver and a device plugin; where its GPUs are pretended, set {DEVICE_VARIABLE}=cpu in"
            " spec.template.env"
        )
    return config


def set_deterministic(deterministic: bool, device: str) -> None:
    """Let this process use only reproducible algorithms of torch, or allow all algorithms again.

    Otherwise several threads sum the gradient of a repeated index in any order, and two equal runs on a busy
    CPU end with different weights. On GPUs some operations have no such algorithm; torch warns when one of
    them is used.
    """
    if deterministic and device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(deterministic, warn_only=device == "cuda")
    # By default this mode also fills new tensors, which costs time and touches memory that no plan counts.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
