"""The default rollout engine: vLLM's server. If the server dies, the trainer restarts it."""

from collections.abc import Callable, Sequence

from rft_run.errors import SamplerError
from rft_trainer.rollout.engine import AdapterVersion, Generated, Request
from rft_trainer.rollout.vllm_client import ConnectionLost, VllmClient
from rft_trainer.rollout.vllm_server import BASE_NAME, ServerOptions, VllmServer
from rft_trainer.runtime import machine

_MAX_DEATHS_IN_A_ROW = 3


class VllmEngine:
    """A RolloutEngine with one vLLM server. It starts in the background, and the first use waits for it."""

    def __init__(self, options: ServerOptions, should_stop: Callable[[], bool] = lambda: False) -> None:
        self.restarts = 0
        self.server = VllmServer(options)
        self._client = VllmClient(self.server.socket, self.server.api_key)
        self._should_stop = should_stop
        self._adapter: AdapterVersion | None = None
        self._loaded: list[str] = []
        self._deaths_in_a_row = 0
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
            except ConnectionLost as error:
                self._restart(error)

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
            self.wait_until_ready()
            model = self._adapter.name if self._adapter else BASE_NAME
            missing = {index: request for index, request in enumerate(requests) if index not in done}
            answered_before = len(done)
            try:
                self._client.complete(model, missing, done, should_stop, self.server.alive)
            except ConnectionLost as error:
                if len(done) > answered_before:
                    self._deaths_in_a_row = 0
                self._restart(error)
        self._deaths_in_a_row = 0
        return [done[index] for index in range(len(requests))]

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
            raise SamplerError(f"vLLM died again and again ({cause}):\n{self.server.log_tail()}") from cause
        self.restarts += 1
        self._ready = False
        self._loaded.clear()
        self.server.stop()
        self.server.start()

    def close(self) -> None:
        """See RolloutEngine."""
        self.server.close()
