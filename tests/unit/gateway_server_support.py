"""Runs a gateway with a fake model, and connects HTTP clients to rollouts of the gateway.

The fake model answers with the texts of a script.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from rft_trainer.rollout.gateway.sampler import BatchSampler
from rft_trainer.rollout.gateway.server import Gateway
from rft_trainer.rollout.gateway.session import RolloutLimits, Session
from tests.unit.gateway_support import Characters, Scripted, session


class Open:
    """Runs a gateway during the ``with`` block. The fake model's answers are the texts in ``script``, in
    order.

    ``before`` is called before each batch is sampled.
    """

    def __init__(self, folder: Path, *script: str, before: Callable[[], None] = lambda: None) -> None:
        self.tokenizer = Characters()
        self.script = Scripted(self.tokenizer, *script, before=before)
        self.sampler = BatchSampler(self.script)
        self.socket = folder / "gateway.sock"
        self.gateway = Gateway(self.socket, self.sampler, self.tokenizer.decode)
        self._clients: list[httpx.Client] = []

    def __enter__(self) -> "Open":
        self.gateway.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for client in self._clients:
            client.close()
        self.gateway.__exit__(None, None, None)
        self.sampler.close()

    def rollout(self, name: str = "r1", limits: RolloutLimits | None = None) -> tuple[Session, httpx.Client]:
        one = session(self.tokenizer, *([limits] if limits else []))
        return one, self.client(name, self.gateway.open_rollout(name, one))

    def client(self, name: str, token: str) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=str(self.socket))
        headers = {"Authorization": f"Bearer {token}"}
        base = f"http://gateway/rollouts/{name}"
        self._clients.append(httpx.Client(transport=transport, base_url=base, headers=headers))
        return self._clients[-1]
