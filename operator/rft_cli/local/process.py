"""Runs the trainer as a child process: passes on the lines of its standard output, writes its standard error
into a log, and passes on Ctrl-C and other stop signals.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from rft_run import run_files

POLL_SECONDS = 0.2
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

SECOND_THOUGHT_SECONDS = 1.0
"""Number of seconds after the first stop signal in which a second one is ignored.

timeout(1), make and terminals may send a signal twice."""

_KILL_AT_END_OF_INPUT = """
import os, signal, sys
sys.stdin.buffer.read()
os.killpg(int(sys.argv[1]), signal.SIGKILL)
"""

INTERRUPTED = 130
"""Exit code of ``rft run`` after a second Ctrl-C."""


class Supervisor:
    """Runs one child process, the trainer, in its own process group.

    When this process gets the first SIGINT (Ctrl-C), SIGTERM or SIGHUP, it sends SIGTERM to the child. The
    trainer then saves a checkpoint and ends. A later Ctrl-C kills the child's process group.
    """

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self._command = command
        self._log = log
        self._env = env
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()
        self._asked_at: float | None = None
        self._killed = False

    @property
    def stopping(self) -> bool:
        """Whether the child process has already been asked to stop."""
        return self._asked_at is not None

    def run(self, on_line: Callable[[str], None], on_tick: Callable[[], None]) -> int:
        """Run the child process to its end and return its exit code.

        - ``on_line`` gets each line of the child's standard output.
        - ``on_tick`` is called several times a second.

        Both functions are called in the thread that called this method. If a signal ended the child, the
        exit code is 128 plus the number of the signal, as in a shell. If a later Ctrl-C killed the child's
        process group, the exit code is ``INTERRUPTED``.
        """
        with run_files.writable(self._log) as log, self._started(log) as process:
            reader = threading.Thread(target=self._read, args=(process,), daemon=True)
            reader.start()
            while process.poll() is None:
                self._deliver(on_line, wait=True)
                on_tick()
            # Wait one second for the rest of the output: a grandchild may keep the pipe open for ever.
            reader.join(timeout=1.0)
            while self._deliver(on_line, wait=False):
                pass
            on_tick()
            if not reader.is_alive() and process.stdout is not None:
                process.stdout.close()
        if self._killed:
            return INTERRUPTED
        return process.returncode if process.returncode >= 0 else 128 - process.returncode

    @contextlib.contextmanager
    def _started(self, log: BinaryIO) -> Iterator["subprocess.Popen[str]"]:
        handlers = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}
        try:
            process = self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                errors="replace",
                env=self._env,
                start_new_session=True,
            )
            if self.stopping:
                # The signal came before the child was started.
                process.send_signal(signal.SIGTERM)
            try:
                yield process
            except BaseException:
                kill_group(process)
                process.wait()
                raise
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Handle a stop signal of this process. At the first one, send SIGTERM to the child process. At a
        later Ctrl-C, kill the child's process group. Ignore all other later signals.

        This method must not wait or take a lock, because it can interrupt any code.
        """
        first = self._asked_at is None
        if self._asked_at is None:
            self._asked_at = time.monotonic()
        process = self._process
        if process is None or process.returncode is not None:
            return
        if first:
            # Only the trainer gets the signal. It stops its children after it has written the checkpoint.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        elif number == signal.SIGINT and time.monotonic() - self._asked_at >= SECOND_THOUGHT_SECONDS:
            self._killed = True
            kill_group(process)

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._lines.put(line.rstrip("\n"))

    def _deliver(self, on_line: Callable[[str], None], *, wait: bool) -> bool:
        try:
            line = self._lines.get(timeout=POLL_SECONDS) if wait else self._lines.get_nowait()
        except queue.Empty:
            return False
        on_line(line)
        return True


def kill_group(process: "subprocess.Popen[Any]") -> None:
    """Kill all processes in the process group that ``process`` leads."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def killed_with_this_process(process: "subprocess.Popen[Any]") -> Iterator[None]:
    """Make sure that the process group of ``process`` is killed if this process ends within the ``with``
    block, even by SIGKILL. ``process`` must lead its own process group.

    For this, a small program is started, which reads from a pipe of this process. The pipe closes when this
    process ends. The small program then kills the group. Linux's PR_SET_PDEATHSIG is not enough: its signal
    reaches only ``process``, and not the processes that ``process`` started, such as the engine of vLLM.
    """
    # With -S and -I the small program starts fast. It reads neither the working folder nor the user's
    # settings.
    command = [sys.executable, "-I", "-S", "-c", _KILL_AT_END_OF_INPUT, str(process.pid)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that Ctrl-C does not end the small program
    ) as watcher:
        try:
            yield
        finally:
            watcher.kill()  # before the pipe closes, because the small program would then kill the group
