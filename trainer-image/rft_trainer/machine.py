"""What the trainer may use of the machine it runs on."""

import ctypes
import math
import os
import signal
from pathlib import Path

PR_SET_PDEATHSIG = 1


def affine_cores() -> list[int]:
    """Cores the scheduler may put this process on."""
    return sorted(os.sched_getaffinity(0))


def cpu_quota() -> float | None:
    """Cores' worth of time this cgroup may use; None without a limit.

    A container with ``limits.cpu: 2`` still sees every core of its node.
    """
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota_us = int(Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text())
        period_us = int(Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text())
        return quota_us / period_us if quota_us > 0 else None
    except (OSError, ValueError):
        return None


def usable_cores() -> int:
    """Threads worth starting: the allowed cores, or the cgroup's quota where that is less."""
    quota = cpu_quota()
    cores = len(affine_cores())
    return cores if quota is None else max(1, min(cores, math.floor(quota)))


def core_ranges(cores: list[int]) -> str:
    """Write sorted core numbers as vLLM reads them: ``0-3,8``."""
    ranges: list[list[int]] = []
    for core in cores:
        if ranges and core == ranges[-1][1] + 1:
            ranges[-1][1] = core
        else:
            ranges.append([core, core])
    return ",".join(f"{low}-{high}" if high > low else str(low) for low, high in ranges)


def die_with_parent(signal_number: int = signal.SIGKILL) -> None:
    """Ask the kernel to signal this process when its parent's starting thread ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal_number))


def cpu_dtype() -> str:
    """The dtype of fast matrix products: float32 is eight times faster where bfloat16 is emulated."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "float32"
    return "bfloat16" if any(flag in flags for flag in ("avx512_bf16", "amx_bf16")) else "float32"
