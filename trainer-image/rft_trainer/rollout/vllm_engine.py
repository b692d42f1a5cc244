"""The default sampler of rollouts: a vLLM server. The trainer starts it, and restarts it if it dies."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rft_run.errors import SamplerError
from rft_trainer.rollout.engine import (
    BASE_NAME,
    AdapterVersion,
    ConnectionLost,
    Generated,
    Request,
    unnoticed,
)
from rft_trainer.rollout.vllm_client import VllmClient
from rft_trainer.rollout.vllm_server import ServerOptions, StartFailed, VllmServer
from rft_trainer.runtime import machine

log = logging.getLogger(__name__)
_MAX_DEATHS_IN_A_ROW = 3
_MAX_STARTS = 3
"""Maximum number of failed starts of the server, one after another.

If two starts ended with the same error, the server is not started again.
"""
_IDLE_SECONDS, _BUSY_SECONDS = 120.0, 3600.0
"""Two time limits in seconds for the server's answer to a request for the log-probs of a text.

The second one is for a server that can have several adapters. There, the request may have to wait for the
completions of a batch.
"""


class VllmEngine:
    """A sampler that uses one vLLM server. The server starts in the background.

    The first call that uses the server waits until the server is ready. Any thread may call the methods. A
    server that dies is restarted once, even if several calls notice its death.

    With one adapter slot, the adapter is changed only while no request is sampled. Requests that come during
    this change wait until it ends. With several slots, an adapter is loaded while requests are sampled. Each
    request then names its adapter, and keeps it if it has to be sent again.
    """

    batches = 64

    def __init__(self, options: ServerOptions, should_stop: Callable[[], bool] = lambda: False) -> None:
        self.restarts = 0
        self._lock = threading.RLock()
        """Locked while the server is restarted, while adapters are loaded, and while a call begins."""
        self._idle = threading.Condition(self._lock)
        self._in_use = 0
        """Number of calls that send requests to the server at present."""
        self._changing = False
        """Whether a thread waits to change the adapter."""
        self.adapters, self.concurrency = options.adapter_slots, options.max_sequences
        self.server = VllmServer(options)
        self._client = VllmClient(self.server.socket, self.server.api_key)
        self._should_stop = should_stop
        self._adapter: AdapterVersion | None = None
        self._kept: tuple[AdapterVersion, ...] = ()
        """Adapters besides the current one that stay loaded, because requests still name them."""
        self._loaded: list[str] = []
        self._deaths_in_a_row = 0
        self._start_errors: list[str] = []
        self._ready = False
        self._kills = machine.out_of_memory_kills()
        self.server.start()

    def wait_until_ready(self) -> None:
        """Wait until the server answers and has loaded its adapters.

        Raises SamplerError if the server cannot be started.
        """
        with self._lock:
            self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        while not self._ready:
            try:
                self.server.wait_until_ready(self._should_stop)
                self._load_missing()
                self._ready = True
                self._start_errors.clear()
                # Earlier kills hit other processes: another sampler, or a grader in the same container.
                self._kills = machine.out_of_memory_kills()
            except ConnectionLost as error:
                self._restart(error, self.restarts)
            except StartFailed as error:
                self._start_again(error)

    def _start_again(self, error: StartFailed) -> None:
        """Start the server again after its start has failed with ``error``.

        If the server lacked memory, this memory may be free now.

        Raises ``error`` in three cases:

        - An earlier start ended with the same error.
        - There were ``_MAX_STARTS`` starts.
        - The kernel killed a process at the memory limit.
        """
        self._start_errors.append(str(error))
        again = str(error) in self._start_errors[:-1]
        if again or len(self._start_errors) >= _MAX_STARTS or machine.out_of_memory_kills() > self._kills:
            raise error
        log.warning("%s; it is started again", error)
        self.restarts += 1
        self.server.stop()
        self.server.start()

    def use_adapter(self, adapter: AdapterVersion | None, kept: Sequence[AdapterVersion] = ()) -> None:
        """Load ``adapter`` and make it the current one. None: sample from the base model alone.

        All other adapters are unloaded, except those in ``kept``. With one adapter slot, first wait until no
        request is sampled.
        """
        with self._lock:
            if self.adapters > 1:
                return self._use_adapter(adapter, tuple(kept))
            self._changing = True
            try:
                self._idle.wait_for(lambda: self._in_use == 0)
                self._use_adapter(adapter, tuple(kept))
            finally:
                self._changing = False
                self._idle.notify_all()

    def _use_adapter(self, adapter: AdapterVersion | None, kept: tuple[AdapterVersion, ...]) -> None:
        self._adapter, self._kept = adapter, kept
        if not self._ready:
            return self._wait_until_ready()
        try:
            for name in set(self._loaded) - {other.name for other in kept}:
                self._client.unload_adapter(name)
                self._loaded.remove(name)
            self._load_missing()
        except ConnectionLost as error:
            self._restart(error, self.restarts)
            self._wait_until_ready()

    @contextmanager
    def _used(self) -> Iterator[str]:
        """Wait until the server is ready. In the ``with`` block, requests may be sent to it.

        Yields the name of the current adapter, or of the base model. With one adapter slot, the adapter does
        not change in the block.
        """
        with self._lock:
            self._idle.wait_for(lambda: not self._changing)
            self._wait_until_ready()
            self._in_use += 1
            name, restarts = self._adapter.name if self._adapter else BASE_NAME, self.restarts
        try:
            yield name
        except ConnectionLost as error:
            error.restarts = restarts
            raise
        finally:
            with self._lock:
                self._in_use -= 1
                self._idle.notify_all()

    def _load_missing(self) -> None:
        """Load the current adapter, and the older ones that requests still name, into the server.

        Adapters that are already loaded are not loaded again.
        """
        for adapter in (*self._kept, self._adapter):
            if adapter is not None and adapter.name not in self._loaded:
                self._client.load_adapter(adapter)
                self._loaded.append(adapter.name)

    def generate(
        self,
        requests: Sequence[Request],
        should_stop: Callable[[], bool] = lambda: False,
        answered: Callable[[], None] = unnoticed,
    ) -> list[Generated]:
        """Sample one completion for each request, and return them in the order of the requests.

        If the server dies, it is restarted, and gets only the unanswered requests again. ``answered`` is
        called once for each completion.
        """
        done: dict[int, Generated] = {}
        while len(done) < len(requests):
            missing = {index: request for index, request in enumerate(requests) if index not in done}
            try:
                self.attempt(missing, done, should_stop, answered)
            except ConnectionLost as error:
                self._restart(error, error.restarts)
        return [done[index] for index in range(len(requests))]

    def attempt(
        self,
        requests: dict[int, Request],
        done: dict[int, Generated],
        should_stop: Callable[[], bool],
        answered: Callable[[], None] = unnoticed,
    ) -> None:
        """Sample a completion for each request, and put it into ``done`` under the key of its request.

        If the server dies, the completions that have arrived are put into ``done``, and ConnectionLost is
        raised. Other samplers may put their completions into ``done`` at the same time.
        """
        found: dict[int, Generated] = {}
        with self._used() as model:
            try:
                self._client.complete(model, requests, found, should_stop, self.server.alive, answered)
                self._deaths_in_a_row = 0
            finally:
                if found:
                    self._deaths_in_a_row = 0
                done |= found

    def recover(self, cause: ConnectionLost) -> None:
        """Restart the server after its death caused ``cause``, and wait until the server is ready.

        If the server was already restarted since then, do not restart it again.
        """
        self._restart(cause, cause.restarts)
        self.wait_until_ready()

    def logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """Return the log-prob, in nats, of each token of a text except the first, with the current adapter.

        If the server dies, it is restarted, and the request is sent again.
        """
        seconds = _BUSY_SECONDS if self.adapters > 1 else _IDLE_SECONDS
        while True:
            try:
                with self._used() as model:
                    found = self._client.logprobs(model, token_ids, seconds)
            except ConnectionLost as error:
                self._restart(error, error.restarts)
            else:
                self._deaths_in_a_row = 0
                return found

    def _restart(self, cause: ConnectionLost, restarts: int) -> None:
        """Restart the server after it gave no answer to a request, unless it was restarted since the request.

        ``restarts``: the number of restarts when the request was sent. Raises SamplerError in two cases:

        - The server died several times in a row without any answer.
        - The kernel killed the server at the memory limit. A new server would need as much memory.
        """
        with self._lock:
            if self.restarts != restarts:
                return
            if machine.out_of_memory_kills() > self._kills:
                raise SamplerError(f"the kernel killed vLLM at the memory limit ({cause})") from cause
            self._deaths_in_a_row += 1
            if self._deaths_in_a_row > _MAX_DEATHS_IN_A_ROW:
                raise SamplerError(
                    f"vLLM died several times in a row ({cause}): {self.server.reason()}"
                ) from cause
            self.restarts += 1
            self._ready = False
            self._loaded.clear()
            self.server.stop()
            self.server.start()

    def close(self) -> None:
        """Stop the server, and remove its temporary folder."""
        self.server.close()
