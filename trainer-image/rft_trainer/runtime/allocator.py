"""Restarts the trainer with the memory allocator tcmalloc, which reuses freed memory without fragmentation.

glibc's allocator has two modes, and both are worse than tcmalloc. In the default mode memory fragments,
because tensors have many sizes: unused gaps are a fifth of the memory of a small model's update. In the mode
that ``machine.give_large_blocks_back`` sets, memory does not fragment, but page faults take half of the
update's time.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def library() -> Path | None:
    """Return the path of the allocator tcmalloc (Debian: ``libtcmalloc-minimal4``). None: not installed."""
    return next(iter(sorted(Path("/usr/lib").glob("*/libtcmalloc_minimal.so.4"))), None)


def preloaded() -> bool:
    """Return whether this process was started with the allocator tcmalloc (by ``LD_PRELOAD``)."""
    return "tcmalloc" in os.environ.get("LD_PRELOAD", "")


def preload(should_stop: Callable[[], bool]) -> None:
    """Start this program again with the allocator tcmalloc. The process and its PID stay the same (execv).

    Returns only in three cases: tcmalloc is already loaded, it is not installed, or ``should_stop`` returns
    True. A stop signal during the restart stays pending until the new program unblocks signals.
    """
    found = library()
    if found is None or preloaded():
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    if should_stop():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        return
    others = os.environ.get("LD_PRELOAD")
    os.environ["LD_PRELOAD"] = f"{found}:{others}" if others else str(found)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606
