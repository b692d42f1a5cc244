"""Finds the device of a local run, without importing torch."""

import os
import re
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from rft_api.resources import Resources
from rft_api.status import Device


class Hardware(NamedTuple):
    """The device of a run (GPU or CPU), and its number of GPUs."""

    device: Device
    gpus: int


def visible_gpus(dev: Path = Path("/dev")) -> int:
    """Return the number of GPUs that this process may use."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        names = [name.strip() for name in allowed.split(",") if name.strip()]
        return 0 if not names or names[0] == "-1" else len(names)
    return sum(1 for node in dev.glob("nvidia*") if re.fullmatch(r"nvidia\d+", node.name))


def torch_has_cuda() -> bool:
    """Whether the installed torch is built for CUDA, as its version string says."""
    try:
        return not metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return False


def detect(resources: Resources | None, dev: Path = Path("/dev")) -> Hardware:
    """Return the device of a run: as many GPUs as the manifest sets, but not more than the machine has.

    Without a GPU it is the CPU.
    """
    wanted = resources.gpus if resources is not None else None
    accelerator = resources.accelerator.name if resources is not None and resources.accelerator else None
    found = visible_gpus(dev) if torch_has_cuda() else 0
    if not found or wanted == 0 or accelerator == "cpu":
        return Hardware("cpu", 0)
    return Hardware("cuda", min(found, wanted if wanted is not None else 1))
