"""The dtype of the base's weights, and of what is computed with them, in trainer and sampler.

On GPUs it is bfloat16. On a CPU bfloat16 is fast only where the processor has instructions for it, and does
not repeat: kernels choose another order of summation for another number of rows. So a run on the CPU takes

1. ``training.cpuDtype`` where the job says it;
2. float32 where ``training.deterministic`` is set;
3. what the machine is fast in where the plan is made on the machine that trains (``rft run``);
4. float32 on a cluster. Its nodes may differ and the operator does not see their processors; float32 is fast
   enough on all of them, and its memory is never too little.

The plan has the result (``status.plan.dtype``), and the trainer obeys the plan.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from rft_api.parameters import Dtype, Training
from rft_api.status import Device

WIDTHS: dict[Dtype, int] = {"float32": 4, "bfloat16": 2}
"""Bytes of one number."""
VARIABLE = "RFT_CPU_DTYPE"
"""Takes the place of what the processor says: for tests, and where it is known better."""
_BFLOAT16_FLAGS = frozenset(("avx512_bf16", "amx_bf16"))
SAFE: Dtype = "float32"
"""What every CPU is fast enough in."""


def dtype_of(training: Training, device: Device, machine: Dtype = SAFE) -> Dtype:
    """Return the dtype of a run on ``device``; ``machine`` is the dtype that the CPU is fast in, if known."""
    if device == "cuda":
        return "bfloat16"
    if training.cpu_dtype is not None:
        return training.cpu_dtype
    return SAFE if training.deterministic else machine


def fast_cpu_dtype(env: Mapping[str, str] = os.environ, processors: Path = Path("/proc/cpuinfo")) -> Dtype:
    """Return the dtype of fast matrix products here. Emulated, bfloat16 takes eight times as long as float32.

    Raises:
        ValueError: if the variable says neither.
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
