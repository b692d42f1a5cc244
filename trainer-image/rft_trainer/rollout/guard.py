"""Runs a command that must not outlive the trainer: ``python guard.py COMMAND ARG...``.

This process is the guard. Its standard input is a pipe from the trainer. The pipe closes when the trainer
ends, even by SIGKILL. When the pipe closes or the command ends, the guard kills its own process group, in
which the command and all its children are. A signal at the trainer's death is not enough: the vLLM server
would get it, but not the engine process that the server started. The guard imports nothing of this package,
so that it starts fast.
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
    """Kill this process's process group: this process, the command, and the children of the command.

    ``status``: the exit status of the command. -1: the command has not ended.
    """
    if status >= 0:
        # Log the command's exit status, because this process dies with the group and returns none.
        print(f"guard: the command ended with exit status {status}", file=sys.stderr, flush=True)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _watch_pipe() -> None:
    while os.read(0, 1):
        pass
    _end_group(-1)


def main() -> None:
    """Run the command of ``sys.argv``. Kill its whole process group when the command or the trainer ends."""
    if os.getpgrp() != os.getpid():
        os.setpgrp()
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)
    threading.Thread(target=_watch_pipe, daemon=True).start()
    _end_group(child.wait() & 0xFF)


if __name__ == "__main__":
    main()
