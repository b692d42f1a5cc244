"""Runs a command that must not outlive the trainer: ``python guard.py COMMAND ARG...``.

Standard input is a pipe from the trainer. It closes when the trainer ends, in whatever way, even by
SIGKILL; then, or when the command ends, everything in this process group is killed. A parent-death signal
alone would not do: it reaches the server, but not the engine process that the server started. Imports
nothing of the package, so that it starts at once.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading

_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _end_group(status: int) -> None:
    """Kill the group, which ends this process too."""
    if status >= 0:
        # The exit status of the command is worth keeping in the log before all goes.
        print(f"guard: the command ended with {status}", file=sys.stderr, flush=True)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _watch_pipe() -> None:
    while os.read(0, 1):
        pass
    _end_group(-1)


def main() -> None:
    """Run the command of the command line under guard."""
    if os.getpgrp() != os.getpid():
        os.setpgrp()
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)
    threading.Thread(target=_watch_pipe, daemon=True).start()
    _end_group(child.wait() & 0xFF)


if __name__ == "__main__":
    main()
