"""Helpers of all modules in this package: they run commands, wait, and lock files."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

TAIL_BYTES = 3000


class ClusterError(Exception):
    """The cluster cannot be created, started or reached. The message says why, and what to do."""


def say(message: str) -> None:
    """Print progress to stderr, because scripts read the output on stdout."""
    print(f"cluster: {message}", file=sys.stderr, flush=True)


def run(
    *command: str | Path,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a command and return its stdout. If this process is interrupted, kill the command's process group.

    Raises:
        ClusterError: the command is missing or failed. The message contains the end of its stderr.
    """
    words = [str(word) for word in command]
    if shutil.which(words[0]) is None:
        raise ClusterError(f"the command {words[0]!r} is not on the PATH")
    started = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=None if env is None else {**os.environ, **env},
        cwd=cwd,
        start_new_session=True,
    )
    try:
        output, errors = started.communicate(stdin)
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.communicate()
        raise
    if started.returncode:
        raise ClusterError(
            f"{' '.join(words)[:300]}: exit {started.returncode}\n{errors[-TAIL_BYTES:].strip()}"
        )
    return output


def succeeds(*command: str | Path) -> bool:
    """Return whether the command exists and exits with 0."""
    try:
        run(*command)
    except ClusterError:
        return False
    return True


def run_contained(command: Sequence[str | Path], log: Path, env: Mapping[str, str], cwd: Path) -> None:
    """Run a long build. Its output goes to ``log``.

    The build runs in a PID namespace of its own. When this process ends, even by ``kill -9``, the kernel
    kills ``unshare``, and with it all processes of the build.

    Raises:
        ClusterError: the command failed. The message contains the end of the log.
    """
    contained = ["setpriv", "--pdeathsig", "KILL", "unshare", "--fork", "--pid", "--mount-proc"]
    with log.open("ab") as output:
        code = subprocess.run(
            [*contained, "--kill-child", "--", *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
            cwd=cwd,
        ).returncode
    if code:
        raise ClusterError(f"{command[0]} failed (exit {code}), see {log}:\n{tail(log)}")


def tail(path: Path) -> str:
    """Return the last 3,000 characters of a text file, or "" if the file does not exist."""
    return path.read_text(errors="replace")[-TAIL_BYTES:] if path.exists() else ""


def wait_until(what: str, seconds: float, condition: Callable[[], bool], poll: float = 0.2) -> None:
    """Call ``condition`` every ``poll`` seconds until it returns true.

    Raises:
        ClusterError: ``condition`` did not return true within ``seconds``. The message contains ``what``.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"no {what} within {seconds:.0f} s")
        time.sleep(poll)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive file lock during the ``with`` block. The kernel releases it if this process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that has locked {path}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Yield an empty folder at ``path``. Files that a killed process left there are removed first."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Yield an empty folder. If the ``with`` block succeeds, the folder is renamed to ``target``."""
    with scratch(target.with_name(f"{target.name}.part")) as draft:
        yield draft
        draft.rename(target)
