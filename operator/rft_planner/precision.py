"""Chooses the dtype of a run: the dtype of the base model's weights and of computations with them.

Trainer and sampler use the same dtype. On GPUs it is bfloat16. On a CPU bfloat16 has two disadvantages:

- It is slow, unless the processor has instructions for it.
- It is not reproducible: the order of a kernel's sums depends on the number of rows.

So a run on the CPU uses the first of these that applies:

1. ``training.cpuDtype`` if the job sets it;
2. float32 if ``training.deterministic`` is set;
3. the dtype that is fast on this machine, if the plan is made on the machine that trains (``rft run``);
4. float32 on a cluster. The operator does not see the processors of the nodes. float32 is fast enough on all
   of them, and its planned memory is never too small.

The plan stores the dtype (``status.plan.dtype``), and the trainer uses it.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from rft_api.parameters import Dtype, Training
from rft_api.status import Device

WIDTHS: dict[Dtype, int] = {"float32": 4, "bfloat16": 2}
"""Bytes of one value in each dtype."""
VARIABLE = "RFT_CPU_DTYPE"
"""Environment variable that names the dtype that is fast on this CPU. If it is set, ``/proc/cpuinfo`` is not
read."""
_BFLOAT16_FLAGS = frozenset(("avx512_bf16", "amx_bf16"))
SAFE: Dtype = "float32"
"""The dtype that is fast enough on every CPU."""


def dtype_of(training: Training, device: Device, machine: Dtype = SAFE) -> Dtype:
    """Return the dtype of the base model's weights in a run on ``device``. Trainer and sampler both use it.

    ``machine`` is the dtype that is fast on the CPU of the machine that trains. A run on the CPU uses it if
    the job neither sets ``training.cpuDtype`` nor is deterministic.
    """
    if device == "cuda":
        return "bfloat16"
    if training.cpu_dtype is not None:
        return training.cpu_dtype
    return SAFE if training.deterministic else machine


def fast_cpu_dtype(env: Mapping[str, str] = os.environ, processors: Path = Path("/proc/cpuinfo")) -> Dtype:
    """Return the dtype that is fast on the CPU of this machine.

    If ``env`` has the variable ``RFT_CPU_DTYPE``, its value is returned. Otherwise the flags of the CPU in
    the file ``processors`` decide: bfloat16 is returned only if the CPU has instructions for bfloat16.
    Without these instructions bfloat16 takes eight times as long as float32. If the file cannot be read,
    float32 is returned.

    Raises:
        ValueError: the variable ``RFT_CPU_DTYPE`` has an unknown value.
    """
    asked = env.get(VARIABLE, "")
    if asked:
        found = next((dtype for dtype in WIDTHS if dtype == asked), None)
        if found is None:
            raise ValueError(f"{VARIABLE}={asked}: must be one of {', '.join(WIDTHS)}")
        return found
    try:
        words = processors.read_text().split()
    except OSError:
        return SAFE
    return SAFE if _BFLOAT16_FLAGS.isdisjoint(words) else "bfloat16"
