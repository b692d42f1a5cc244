"""Reads how many cores and how much memory the trainer may use on this machine."""

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
"""A memory limit of cgroup v1 of this value or more means "no limit".

If there is no limit, the kernel writes a very large number.
"""


def affine_cores() -> int:
    """Return the number of cores on which this process may run, by its CPU affinity."""
    return len(os.sched_getaffinity(0))


def cpu_quota() -> float | None:
    """Return the CPU quota of this container's cgroup, in cores. None: there is no limit.

    The CPU affinity does not show this quota. In a container with ``limits.cpu: 2``, the affinity still has
    all cores of the node.
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


def wanted_threads() -> int | None:
    """Return the number of threads that the environment variable OMP_NUM_THREADS sets. None: it sets none.

    The variable may list one number for each level of nested parallelism. The first one counts.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def usable_cores() -> int:
    """Return the number of threads to start: the smallest of CPU affinity, CPU quota and OMP_NUM_THREADS.

    The result is at least 1. A user can lower it with OMP_NUM_THREADS. On a machine that other programs use
    too, fewer threads can be faster, because the threads of an operation wait for each other.
    """
    limits: list[float] = [affine_cores()]
    limits += [limit for limit in (cpu_quota(), wanted_threads()) if limit is not None]
    return max(1, math.floor(min(limits)))


def die_with_parent(signal_number: int = signal.SIGKILL) -> None:
    """Ask the kernel to send this process a signal when the thread that started the process ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal_number))


def memory_limit(root: Path = CGROUPS, process: Path = Path("/proc/self/cgroup")) -> int | None:
    """Return the memory limit of this container, in bytes. None: there is no limit.

    The limit is read from the files of the cgroup. ``root``: the folder of all cgroups. In a container, the
    files of the container's cgroup are in this folder itself. ``process``: a file that names this process's
    cgroup.
    """
    found = [
        limit
        for folder in _memory_groups(root, process)
        for name in ("memory.max", "memory.limit_in_bytes")
        if (limit := _number(folder / name)) is not None and limit < _NO_LIMIT
    ]
    return min(found, default=None)


def out_of_memory_kills(root: Path = CGROUPS, process: Path = Path("/proc/self/cgroup")) -> int:
    """Return how many processes of this container the kernel killed at the memory limit. 0 if not known.

    ``root``: the folder of all cgroups. ``process``: a file that names this process's cgroup.
    """
    # Only the container's own cgroup is read, because the counters of its parents include other containers.
    found = (_kills(folder) for folder in _memory_groups(root, process))
    return next((kills for kills in found if kills is not None), 0)


def _memory_groups(root: Path, process: Path) -> list[Path]:
    """Return the folders of this process's memory cgroup and of the parents of this cgroup.

    It works for cgroup v1 and v2. Some folders may not exist. ``root``: the folder of all cgroups.
    ``process``: a file that names this process's cgroup.
    """
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
    # A container may see its own cgroup as the root. The path in ``process`` is then that of the host and
    # does not exist here.
    return list(dict.fromkeys([*found, root / "memory", root]))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not there, or "max"
        return None


def _kills(folder: Path) -> int | None:
    """Return how many processes of a cgroup the kernel killed at the memory limit. None: not known.

    ``folder``: the folder of the cgroup. The number is in the line ``oom_kill`` of memory.events, or of
    memory.oom_control in cgroup v1.
    """
    for name in ("memory.events", "memory.oom_control"):
        try:
            counts = dict(line.split() for line in (folder / name).read_text().splitlines())
        except (OSError, ValueError):
            continue
        if "oom_kill" in counts:
            return int(counts["oom_kill"])
    return None


def total_memory() -> int:
    """Return the size of this machine's physical memory, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def give_large_blocks_back() -> bool:
    """Make glibc return large freed memory blocks to the kernel at once. Return whether glibc accepted this.

    glibc returns only blocks that have their own memory map. Only blocks of at least a minimum size have one.
    By default this size grows up to 32 MiB, so tensors of many sizes fragment the heap. This function fixes
    the size at 128 KiB. The heap does not fragment then, but an update of the policy can take twice the time.
    So the allocator tcmalloc (module ``allocator``) is preferred if it is installed.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _BLOCK_OF_ITS_OWN))
    except AttributeError:  # a C library other than glibc
        return False
