"""A sampler that samples by several adapters at the same time, as vLLM does, but in the test's process."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from rft_trainer.rollout.engine import (
    BASE_NAME,
    AdapterVersion,
    ConnectionLost,
    Generated,
    Request,
    unnoticed,
)
from rft_trainer.rollout.transformers_engine import TransformersEngine


class SeveralAdapters:
    """A sampler with a real ``TransformersEngine`` for each loaded adapter.

    A batch is one call of ``attempt``. A test can delay the last four completions of a batch (``hold``), or
    let the sampler lose its connection before them (``dies``).
    """

    batches, restarts = 4, 0

    def __init__(self, model: Path, adapters: int = 4) -> None:
        self.adapters, self.concurrency = adapters, 256
        self._model, self._current = model, BASE_NAME
        self._engines = {BASE_NAME: TransformersEngine(model, "cpu", "float32")}
        self.changed = threading.Condition()
        self.hold: Callable[[int], None] = lambda _number: None
        """A function that is called before the last four completions of a batch are sampled.

        It gets the number of the batch, from 1.
        """
        self.dies = False
        """Whether the sampler loses the connection before the last four completions of the next batch."""
        self.used: list[str] = []
        """The adapter of each batch, in the order in which the batches began."""
        self.running = self.most_running = self.most_loaded = 0

    def wait_until_ready(self) -> None: ...

    def close(self) -> None: ...

    def use_adapter(self, adapter: AdapterVersion | None, kept: Sequence[AdapterVersion] = ()) -> None:
        wanted = {one.name: one for one in (*kept, adapter) if one is not None}
        assert all(one.name in self._engines for one in kept), "only a loaded adapter can be kept"
        engines = {BASE_NAME: self._engines[BASE_NAME]}
        for name, version in wanted.items():
            if name in self._engines and version in kept:
                engines[name] = self._engines[name]
            else:
                engines[name] = TransformersEngine(self._model, "cpu", "float32")
                engines[name].use_adapter(version)
        self._engines, self._current = engines, adapter.name if adapter is not None else BASE_NAME
        self.most_loaded = max(self.most_loaded, len(wanted))

    def generate(
        self,
        requests: Sequence[Request],
        should_stop: Callable[[], bool] = lambda: False,
        answered: Callable[[], None] = unnoticed,
    ) -> list[Generated]:
        done: dict[int, Generated] = {}
        self.attempt(dict(enumerate(requests)), done, should_stop, answered)
        return [done[index] for index in range(len(requests))]

    def attempt(
        self,
        requests: dict[int, Request],
        done: dict[int, Generated],
        should_stop: Callable[[], bool],
        answered: Callable[[], None] = unnoticed,
    ) -> None:
        (name,) = Counter(request.adapter or self._current for request in requests.values())
        with self.changed:
            self.used.append(name)
            number = len(self.used)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            self.changed.notify_all()
        keys = sorted(requests)
        try:
            self._sample(name, requests, keys[:-4], done, should_stop, answered)
            if self.dies:
                self.dies = False
                raise ConnectionLost("killed")
            self.hold(number)
            self._sample(name, requests, keys[-4:], done, should_stop, answered)
        finally:
            with self.changed:
                self.running -= 1
                self.changed.notify_all()

    def _sample(
        self,
        name: str,
        requests: dict[int, Request],
        keys: Sequence[int],
        done: dict[int, Generated],
        should_stop: Callable[[], bool],
        answered: Callable[[], None],
    ) -> None:
        chosen = {key: replace(requests[key], adapter=None) for key in keys}
        self._engines[name].attempt(chosen, done, should_stop, answered)

    def recover(self, _cause: ConnectionLost) -> None:
        self.restarts += 1

    def logprobs(self, token_ids: Sequence[int]) -> list[float]:
        return self._engines[self._current].logprobs(token_ids)


def an_adapter(model: Path, folder: Path, name: str = "v000001") -> AdapterVersion:
    """Save a random adapter of ``model`` in ``folder``. It changes the model's log-probs."""
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(model), LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    )
    torch.manual_seed(0)
    for parameter, weight in adapted.named_parameters():
        if "lora_B" in parameter:
            torch.nn.init.normal_(weight, std=20.0)
    adapted.save_pretrained(str(folder))
    return AdapterVersion(name, folder)
