"""Runs graders outside the trainer's process: in the grader container, or in a local process."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import rft_api
import rft_graders
from rft_graders.client import (
    Graded,
    GraderClient,
    GradeRequest,
    GraderLost,
    Inbox,
    Listener,
    ShouldStop,
)
from rft_graders.confinement import set_dumpable
from rft_graders.workers import LOAD_SECONDS, worker_environment
from rft_run.config import GRADER_CONFIG_FILE, GraderConfig
from rft_run.errors import TrainerError

CONNECT_SECONDS = 300.0
"""Maximum seconds to wait for the grader container to connect. The node may still pull its image."""

_SLACK_SECONDS = 30.0


def max_silence(timeouts: Sequence[float]) -> float:
    """Return the number of seconds without any reply after which a grader process counts as lost.

    ``timeouts``: each grader's timeout in seconds. A healthy process may send nothing while a request reaches
    the timeout, its worker process restarts, and a second try of the request reaches the timeout too.
    """
    return 2 * max(timeouts, default=0.0) + LOAD_SECONDS + _SLACK_SECONDS


class Backend(Protocol):
    """The interface for graders that run outside the trainer's process: in the grader container, in a local
    process, or on servers.
    """

    def ready(self, should_stop: ShouldStop) -> dict[str, str | None]:
        """Wait until each grader is loaded or has failed to load.

        Return the error message for each grader, by its name. None: the grader is loaded.
        """

    def exchange(self, requests: Sequence[GradeRequest], should_stop: ShouldStop) -> list[Graded]:
        """Run the graders on all requests. Return each score or error, in the order of the requests."""

    def close(self) -> None:
        """Stop the processes and close the connections of the graders."""


class HostBackend(Backend, Protocol):
    """The interface of a backend that can also run a user's environment, for rollouts with several turns."""

    def converse(self, inbox: Inbox, should_stop: ShouldStop) -> None:
        """Send each request that other threads put into ``inbox``. Set the request's future to the reply.

        Return when the inbox is closed and all requests have a reply.
        """


class ContainerBackend:
    """Sends requests to the grader container, which runs users' code beside the trainer in the same pod. The
    container connects to a socket of the trainer.

    Kubernetes does not restart the container while the trainer runs. So if the container is lost, the trainer
    ends with an error.
    """

    def __init__(self, path: str, silence: float) -> None:
        """Listen on the socket file ``path`` at once: the container may connect before ``ready`` is called.

        ``silence``: seconds without any reply after which the container counts as lost, see ``max_silence``.
        """
        self._listener = Listener(path)
        self._silence = silence
        self._client: GraderClient | None = None

    def ready(self, should_stop: ShouldStop) -> dict[str, str | None]:
        """Wait until the container has connected, and each grader is loaded or has failed to load.

        Return the error message for each grader, by its name. None: the grader is loaded. Raises TrainerError
        if the container does not connect.
        """
        try:
            self._client = GraderClient(self._listener.accept(CONNECT_SECONDS, should_stop), self._silence)
            return self._client.hello(should_stop)
        except GraderLost as error:
            raise TrainerError(str(error)) from error

    def exchange(self, requests: Sequence[GradeRequest], should_stop: ShouldStop) -> list[Graded]:
        """Return the score or the error of each request, in the order of the requests.

        Raises TrainerError if the container is lost.
        """
        assert self._client is not None
        outcomes: dict[int, Graded] = {}
        try:
            self._client.exchange(requests, outcomes, should_stop)
        except GraderLost as error:
            raise TrainerError(f"{error}; see the logs of the grader container") from error
        return [outcomes[index] for index in range(len(requests))]

    def converse(self, inbox: Inbox, should_stop: ShouldStop) -> None:
        """Send each request in ``inbox`` to the container, as ``HostBackend.converse`` describes.

        Raises TrainerError if the container is lost. Then futures without a reply are not set.
        """
        assert self._client is not None
        try:
            self._client.converse(inbox, should_stop)
        except GraderLost as error:
            raise TrainerError(f"{error}; see the logs of the grader container") from error

    def close(self) -> None:
        """Close the socket. The grader container ends when its socket closes."""
        self._listener.close()
        if self._client is not None:
            self._client.close()


class LocalBackend:
    """Runs graders in a local child process, for a run without a cluster. This limits the damage of mistakes
    in users' code, but gives no security.

    Users' code can use files and network like the user who started the trainer. It gets no environment
    variables of the trainer, has resource limits, and cannot read the trainer's memory.

    The process ends when its socket closes. So it also ends when the trainer is killed. PR_SET_PDEATHSIG is
    not used: its signal would come as soon as the thread that started the process ends.
    """

    def __init__(
        self, config: GraderConfig, scratch_dir: str | None, silence: float, *, hide: bool = True
    ) -> None:
        """Make a private folder in ``scratch_dir``, with the configuration for the child process. The method
        ``ready`` starts the process.

        - ``silence``: seconds without any reply after which the process counts as lost, see ``max_silence``.
        - ``hide``: whether to hide the trainer's memory and environment from other processes of its UID.
        """
        self._config = config
        self._silence = silence
        self._folder = Path(tempfile.mkdtemp(prefix="rft-grader-", dir=scratch_dir))
        (self._folder / GRADER_CONFIG_FILE).write_text(
            config.model_dump_json(by_alias=True, exclude_none=True)
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._client: GraderClient | None = None
        self._hide = hide
        if hide:
            set_dumpable(False)

    def ready(self, should_stop: ShouldStop) -> dict[str, str | None]:
        """Start the process, and wait until each grader is loaded or has failed to load.

        Return the error message for each grader, by its name. None: the grader is loaded. Raises TrainerError
        if the process does not start.
        """
        try:
            return self._start().hello(should_stop)
        except GraderLost as error:
            self._stop()
            raise TrainerError(f"the local grader process did not start: {error}") from error

    def exchange(self, requests: Sequence[GradeRequest], should_stop: ShouldStop) -> list[Graded]:
        """Return the score or the error of each request, in the order of the requests.

        If the process is lost, the requests without a reply get an error. The next call starts it again.
        """
        if self._client is None:
            self.ready(should_stop)
        assert self._client is not None
        outcomes: dict[int, Graded] = {}
        try:
            self._client.exchange(requests, outcomes, should_stop)
        except GraderLost as error:
            self._stop()
            lost = Graded(ValueError(str(error)))
            return [outcomes.get(index, lost) for index in range(len(requests))]
        return [outcomes[index] for index in range(len(requests))]

    def converse(self, inbox: Inbox, should_stop: ShouldStop) -> None:
        """Send each request in ``inbox`` to the process, as ``HostBackend.converse`` describes.

        If the process is lost, the requests that wait for its reply get an error, and it is started again.
        """
        while not (inbox.ended and not inbox.sent):
            if self._client is None:
                self.ready(should_stop)
            assert self._client is not None
            try:
                self._client.converse(inbox, should_stop)
            except GraderLost as error:
                self._stop()
                for future in inbox.sent.values():
                    future.set_result(Graded(ValueError(str(error))))
                inbox.sent.clear()

    def close(self) -> None:
        """End the grader process and remove its private folder."""
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._hide:
            set_dumpable(True)

    def _start(self) -> GraderClient:
        ours, theirs = socket.socketpair()
        packages = {str(Path(package.__path__[0]).parent) for package in (rft_api, rft_graders)}
        environment = worker_environment(self._folder) | {"PYTHONPATH": os.pathsep.join(sorted(packages))}
        command = [sys.executable, "-s", "-P", "-m", "rft_graders.serve"]
        arguments = ["--descriptor", str(theirs.fileno()), "--config", str(self._folder / GRADER_CONFIG_FILE)]
        with theirs:
            self._process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=environment,
                cwd=self._folder,
                start_new_session=True,
            )
        self._client = GraderClient(ours, self._silence)
        return self._client

    def _stop(self) -> None:
        """Close the socket to the grader process, and wait until this process has killed its workers and
        ended. Kill it if it has not ended after 10 seconds.
        """
        if self._client is not None:
            self._client.close()
        if self._process is not None:
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                _kill_group(self._process.pid)
                self._process.wait()
        self._client = self._process = None


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
