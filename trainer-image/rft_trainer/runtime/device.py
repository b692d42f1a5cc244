"""Chooses the device of a run: the planned device, or the CPU if GPUs are simulated.

Also sets torch's deterministic mode.
"""

import os
from collections.abc import Mapping

import torch

from rft_run.config import RunConfig
from rft_run.errors import ConfigurationError

DEVICE_VARIABLE = "RFT_DEVICE"
"""Environment variable: with the value ``cpu``, the run computes on the CPU although its pod requests GPUs.

It is for test clusters with simulated GPUs.
"""


def on_this_machine(config: RunConfig, env: Mapping[str, str] = os.environ) -> RunConfig:
    """Check that this machine has the planned GPUs. Return the configuration, changed for the CPU if asked.

    The environment variable ``RFT_DEVICE=cpu`` is for test clusters with simulated GPUs: the pod requests
    GPUs, but the run computes on the CPU. The result then has no plan, because the plan is made for GPUs.

    Raises:
        ConfigurationError: torch finds fewer GPUs than planned, or RFT_DEVICE has an invalid value.
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
            f"the plan needs {config.gpus} GPU{'s' if config.gpus > 1 else ''}, but torch finds"
            f" {seen or 'no GPU'}: the GPU driver may be older than torch needs (see the error of"
            ' python -c "import torch; torch.cuda.init()"); in a cluster the image needs torch for GPUs'
            " (spec.template.image), and the node needs a GPU driver and a device plugin; on a cluster with"
            f" simulated GPUs, set {DEVICE_VARIABLE}=cpu in spec.template.env"
        )
    return config


def set_deterministic(deterministic: bool, device: str) -> None:
    """Set whether torch uses only deterministic algorithms in this process.

    With other algorithms, several threads sum the gradient of a repeated index in any order. Then two equal
    runs on a busy CPU end with different weights. On GPUs some operations have no deterministic algorithm:
    torch then warns, and uses another one. ``device``: "cpu" or "cuda".
    """
    if deterministic and device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(deterministic, warn_only=device == "cuda")
    # By default this mode also fills new tensors, which costs time and touches memory that no plan counts.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
