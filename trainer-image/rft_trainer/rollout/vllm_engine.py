"""The default rollout engine: vLLM's server. If the server dies, the trainer restarts it."""

import logging
from collections.abc import Callable, Sequence

from rft_run.errors import SamplerError
from rft_trainer.rollout.engine import AdapterVersion, ConnectionLost, Generated, Request
from rft_trainer.rollout.vllm_client import VllmClient
from rft_trainer.rollout.vllm_server import BASE_NAME, ServerOptions, StartFailed, VllmServer
from rft_trainer.runtime import machine

log = logging.getLogger(__name__)
_MAX_DEATHS_IN_A_ROW = 3
_MAX_STARTS = 3
"""Number of times that a server is started until it answers. Two starts with the same error are enough."""


class VllmEngine:
    """A RolloutEngine with one vLLM server. It starts in the background, and the first use waits for this."""

    def __init__(self, options: ServerOptions, should_stop: Callable[[], bool] = lambda: False) -> None:
        self.restarts = 0
        self.server = VllmServer(options)
        self._client = VllmClient(self.server.socket, self.server.api_key)
        self._should_stop = should_stop
        self._adapter: AdapterVersion | None = None
        self._loaded: list[str] = []
        self._deaths_in_a_row = 0
        self._start_errors: list[str] = []
        self._ready = False
        self._kills = machine.out_of_memory_kills()
        self.server.start()

    def wait_until_ready(self) -> None:
        """Return when the server answers and has loaded the current adapter."""
        while not self._ready:
            try:
                self.server.wait_until_ready(self._should_stop)
                if self._adapter is not None:
                    self._load(self._adapter)
                self._ready = True
                self._start_errors.clear()
                # Until now others were killed: another sampler, or a grader in the same container.
                self._kills = machine.out_of_memory_kills()
            except ConnectionLost as error:
                self._restart(error)
            except StartFailed as error:
                self._start_again(error)

    def _start_again(self, error: StartFailed) -> None:
        """Start the server again after it ended during its start. Memory may be free by now.

        Raises the error if it is the same as before, or if the server was started often enough.
        """
        self._start_errors.append(str(error))
        again = str(error) in self._start_errors[:-1]
        if again or len(self._start_errors) >= _MAX_STARTS or machine.out_of_memory_kills() > self._kills:
            raise error
        log.warning("%s; it is started again", error)
        self.restarts += 1
        self.server.stop()
        self.server.start()

    def use_adapter(self, adapter: AdapterVersion | None) -> None:
        """Make this the current adapter. Versions that were loaded before are unloaded."""
        self._adapter = adapter
        if not self._ready:
            return self.wait_until_ready()
        try:
            for name in self._loaded:
                self._client.unload_adapter(name)
            self._loaded.clear()
            if adapter is not None:
                self._load(adapter)
        except ConnectionLost as error:
            self._restart(error)
            self.wait_until_ready()

    def _load(self, adapter: AdapterVersion) -> None:
        self._client.load_adapter(adapter)
        self._loaded.append(adapter.name)

    def generate(
        self, requests: Sequence[Request], should_stop: Callable[[], bool] = lambda: False
    ) -> list[Generated]:
        """Generate one completion per request. A restarted server gets only the unanswered requests."""
        done: dict[int, Generated] = {}
        while len(done) < len(requests):
            missing = {index: request for index, request in enumerate(requests) if index not in done}
            try:
                self.attempt(missing, done, should_stop)
            except ConnectionLost as error:
                self._restart(error)
        return [done[index] for index in range(len(requests))]

    def attempt(
        self, requests: dict[int, Request], done: dict[int, Generated], should_stop: Callable[[], bool]
    ) -> None:
        """Generate completions, see Replica. Other samplers may put completions into ``done`` meanwhile."""
        self.wait_until_ready()
        model = self._adapter.name if self._adapter else BASE_NAME
        answered: dict[int, Generated] = {}
        try:
            self._client.complete(model, requests, answered, should_stop, self.server.alive)
            self._deaths_in_a_row = 0
        finally:
            if answered:
                self._deaths_in_a_row = 0
            done |= answered

    def recover(self, cause: ConnectionLost) -> None:
        """See Replica."""
        self._restart(cause)
        self.wait_until_ready()

    def logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """See RolloutEngine."""
        while True:
            self.wait_until_ready()
            try:
                found = self._client.logprobs(self._adapter.name if self._adapter else BASE_NAME, token_ids)
            except ConnectionLost as error:
                self._restart(error)
            else:
                self._deaths_in_a_row = 0
                return found

    def _restart(self, cause: ConnectionLost) -> None:
        """Restart the server.

        Raises SamplerError when the server died several times in a row without any answer, and when the
        kernel killed it at the memory limit: a new server would need as much memory.
        """
        if machine.out_of_memory_kills() > self._kills:
            raise SamplerError(f"the kernel killed vLLM at the memory limit ({cause})") from cause
        self._deaths_in_a_row += 1
        if self._deaths_in_a_row > _MAX_DEATHS_IN_A_ROW:
            raise SamplerError(f"vLLM died again and again ({cause}): {self.server.reason()}") from cause
        self.restarts += 1
        self._ready = False
        self._loaded.clear()
        self.server.stop()
        self.server.start()

    def close(self) -> None:
        """See RolloutEngine."""
        self.server.close()
