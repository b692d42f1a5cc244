"""What the trainer may use of the machine it runs on."""

import ctypes
import math
import os
import signal
from pathlib import Path

PR_SET_PDEATHSIG = 1
CGROUPS = Path("/sys/fs/cgroup")
_M_MMAP_THRESHOLD = -3
_BLOCK_OF_ITS_OWN = 128 * 1024
_NO_LIMIT = 2**60
"""Above it a limit of the first version means none: it writes the largest number of whole pages."""


def affine_cores() -> int:
    """Number of cores the scheduler may put this process on."""
    return len(os.sched_getaffinity(0))


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
    cores = affine_cores()
    return cores if quota is None else max(1, min(cores, math.floor(quota)))


def die_with_parent(signal_number: int = signal.SIGKILL) -> None:
    """Ask the kernel to signal this process when its parent's starting thread ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal_number))


def memory_limit(root: Path = CGROUPS, process: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes that this container may hold; None without a limit.

    In a container the group's own files are at the root; elsewhere in the folder that ``process`` names.
    """
    found = [
        limit
        for folder in _memory_groups(root, process)
        for name in ("memory.max", "memory.limit_in_bytes")
        if (limit := _number(folder / name)) is not None and limit < _NO_LIMIT
    ]
    return min(found, default=None)


def out_of_memory_kills(root: Path = CGROUPS, process: Path = Path("/proc/self/cgroup")) -> int:
    """Processes of this container that the kernel has killed at its memory limit; 0 where unknown."""
    # Of its own group only: those around it count other containers too.
    found = (_kills(folder) for folder in _memory_groups(root, process))
    return next((kills for kills in found if kills is not None), 0)


def _memory_groups(root: Path, process: Path) -> list[Path]:
    """Folders of this process's memory group and of those around it, of either version of cgroups."""
    try:
        lines = process.read_text().splitlines()
    except OSError:
        lines = []
    found: list[Path] = []
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers in ("", "memory"):
            top = root / controllers
            own = top / path.lstrip("/")
            found += [own, *(parent for parent in own.parents if parent.is_relative_to(top))]
    # Where the container sees its own group as the root, the path is that of the host and leads nowhere.
    return list(dict.fromkeys([*found, root / "memory", root]))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not there, or "max"
        return None


def _kills(folder: Path) -> int | None:
    """The line ``oom_kill 2`` of memory.events, or of memory.oom_control in the first version."""
    for name in ("memory.events", "memory.oom_control"):
        try:
            counts = dict(line.split() for line in (folder / name).read_text().splitlines())
        except (OSError, ValueError):
            continue
        if "oom_kill" in counts:
            return int(counts["oom_kill"])
    return None


def total_memory() -> int:
    """Bytes of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def give_large_blocks_back() -> bool:
    """Let glibc map every large block on its own, so that what is freed goes back; whether it does.

    By default the size from which it does so grows with what was freed, up to 32 MiB: tensors of every
    length then leave holes. It costs an update up to twice its time, so tcmalloc is preferred where there
    is one (``allocator``).
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _BLOCK_OF_ITS_OWN))
    except AttributeError:  # another C library
        return False
