"""tcmalloc for the trainer's process: what an update frees serves the next one, and nothing is left over.

glibc's own leaves holes between tensors of every length, a fifth of what a small model's update holds, or
spends half of the update on fresh pages (``machine.give_large_blocks_back``).
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def library() -> Path | None:
    """Return tcmalloc, where it is installed (Debian's ``libtcmalloc-minimal4``)."""
    return next(iter(sorted(Path("/usr/lib").glob("*/libtcmalloc_minimal.so.4"))), None)


def preloaded() -> bool:
    """Whether this process was started with tcmalloc."""
    return "tcmalloc" in os.environ.get("LD_PRELOAD", "")


def preload(should_stop: Callable[[], bool]) -> None:
    """Start this program again with tcmalloc, as the same process; returns where it has it, or never can.

    A request to stop that comes in between is kept: it waits until the new program takes signals again.
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
