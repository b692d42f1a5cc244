"""Finds the GPUs of this machine, and decides whether a run on this machine uses them or the CPU. It does not
import torch.
"""

import os
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from rft_api.resources import Resources
from rft_api.status import Device
from rft_planner.accelerators import NVIDIA
from rft_planner.kind_labels import product_key
from rft_planner.nodes import Kind, Node, kinds_of

_DRIVER_SECONDS = 30


class Hardware(NamedTuple):
    """The hardware that a run on this machine may use: the CPU, or a number of GPUs of one kind."""

    device: Device
    gpus: int
    """Number of GPUs that the run may use. 0 on the CPU."""
    kind: Kind | None = None
    """Kind of these GPUs. None: there are none, or their kind is not known and no plan can be made for them.
    """


def visible_gpus(dev: Path = Path("/dev")) -> int:
    """Return the number of NVIDIA GPUs that this process may use.

    This is the number of GPUs that the environment variable CUDA_VISIBLE_DEVICES lists. If the variable is
    not set, it is the number of the device files ``nvidia0``, ``nvidia1``, ... in the folder ``dev``.
    """
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        names = [name.strip() for name in allowed.split(",") if name.strip()]
        return 0 if not names or names[0] == "-1" else len(names)
    return sum(1 for node in dev.glob("nvidia*") if re.fullmatch(r"nvidia\d+", node.name))


def torch_has_cuda() -> bool:
    """Return whether torch is installed in a build for GPUs. The version of a build for the CPU ends with
    ``+cpu``.
    """
    try:
        return not metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return False


def detect(resources: Resources | None, dev: Path = Path("/dev")) -> Hardware:
    """Return the hardware that a run on this machine may use. ``resources`` is ``spec.resources``.

    It is the CPU if there is no usable GPU, or if ``resources`` asks for the CPU. Otherwise the run may use
    this number of GPUs:

    - If ``resources`` sets a number: this number, but at most all GPUs of this machine.
    - If it sets no number and the kind of the GPUs is known: all GPUs. The plan then decides how many are
      used.
    - If it sets no number and the kind is not known: one GPU, because no plan can be made.

    ``dev`` is the folder of device files.
    """
    wanted = resources.gpus if resources is not None else None
    accelerator = resources.accelerator.name if resources is not None and resources.accelerator else None
    found = visible_gpus(dev) if torch_has_cuda() else 0
    if not found or wanted == 0 or accelerator == "cpu":
        return Hardware("cpu", 0)
    kind = gpu_of_this_machine()
    return Hardware("cuda", min(found, wanted or (found if kind is not None else 1)), kind)


def unused_gpus(resources: Resources | None, dev: Path = Path("/dev")) -> str | None:
    """Return a message for a run that uses the CPU: why it does not use the GPUs, and what to change.

    Return ``None`` if this machine has no GPUs. ``resources`` is ``spec.resources``, and ``dev`` is the
    folder of device files.
    """
    found = visible_gpus(dev)
    if not found:
        return None
    has = f"this machine has {found} GPU{'s' if found > 1 else ''}"
    if resources is not None and resources.gpus == 0:
        return f"{has}, but spec.resources.gpus is 0; remove it to train on a GPU"
    if resources is not None and resources.accelerator and resources.accelerator.name == "cpu":
        return f"{has}, but spec.resources.accelerator.name is cpu; remove it to train on a GPU"
    return f"{has}, but the installed torch is a build for the CPU; install one for GPUs"


def gpu_of_this_machine() -> Kind | None:
    """Return the kind of this machine's GPUs (name and memory), as ``nvidia-smi`` reports it. If there are
    several kinds, return the one with the least memory.

    Return ``None`` if ``nvidia-smi`` is missing, fails, or prints nothing that can be parsed.
    """
    asked = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=_DRIVER_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return kind_of_driver(said.stdout)


def kind_of_driver(said: str) -> Kind | None:
    """Parse ``said``, the output of ``nvidia-smi``. Return the kind of the GPU with the least memory.

    Each line of ``said`` has the name of a GPU and its memory in MiB, with a comma between them. Return None
    if no line can be parsed.
    """
    found = []
    for line in said.splitlines():
        name, _, mebibytes = (part.strip() for part in line.rpartition(","))
        labels = {product_key(NVIDIA): name.replace(" ", "-"), f"{NVIDIA}.memory": mebibytes}
        found += kinds_of(Node("here", labels, {NVIDIA: 1.0}))
    return min(found, key=lambda kind: kind.memory, default=None)
