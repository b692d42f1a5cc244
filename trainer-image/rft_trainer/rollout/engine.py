"""The protocol of samplers: a sampler gets token ids, and returns token ids with their log-probabilities."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from rft_trainer.rollout.segments import Episode

FinishReason = Literal["stop", "length"]
BASE_NAME = "base"
"""The name by which requests ask for the base model without an adapter."""


def unnoticed() -> None:
    """Do nothing. It is the default of callbacks that are called once for each completion."""


class ConnectionLost(Exception):
    """The connection to a sampler was lost. Requests without an answer may be sent again."""

    restarts = 0
    """Number of restarts of the sampler before the lost requests were sent."""


@dataclass(frozen=True)
class SamplingParameters:
    """How tokens are sampled.

    - ``temperature``: 0 is greedy decoding.
    - ``top_p``: 1 is off.
    - ``top_k``: 0 is off.
    - ``max_tokens``: the maximum length of a completion, in tokens.
    - ``stop``: texts. Each of them ends a completion.
    - ``stop_token_ids``: token ids. Each of them ends a completion.

    The ``token_ids`` of a completion include the token that ended it, such as an end token.
    """

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()

    @property
    def greedy(self) -> bool:
        """Whether decoding is greedy: always the most probable token."""
        return self.temperature == 0

    def at(self, temperature: float) -> "SamplingParameters":
        """Return these parameters with another temperature. Temperature 0 switches off top-k and top-p."""
        if temperature > 0:
            return replace(self, temperature=temperature)
        return replace(self, temperature=0.0, top_p=1.0, top_k=0)

    def effective(self) -> "SamplingParameters":
        """Return these parameters, with top-p 0 replaced by top-k 1.

        Both mean greedy decoding, but samplers refuse top-p 0.
        """
        if self.top_p > 0:
            return self
        return replace(self, top_p=1.0, top_k=1)


@dataclass(frozen=True)
class Request:
    """A request for one completion of one prompt.

    ``adapter``: the name of the adapter that samples, or ``BASE_NAME``. None: the sampler's current adapter.
    """

    prompt_token_ids: tuple[int, ...]
    seed: int
    parameters: SamplingParameters
    adapter: str | None = None


@dataclass(frozen=True)
class Generated:
    """One completion: a single answer, or the sampled tokens of a rollout of several turns.

    - ``token_ids``: the sampled tokens. If there is an episode, the tokens of all its turns.
    - ``logprobs``: the log-prob of each token by the sampler, after temperature, top-k and top-p, in nats.
    - ``text``: the text of the completion. If there is an episode, the text of its last turn.
    - ``finish_reason``: "length" if the completion was cut at ``max_tokens``, or if a limit ended its
      episode; else "stop".
    - ``episode``: the record of a rollout of several turns. None: the completion is a single answer.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: FinishReason
    episode: Episode | None = None

    @property
    def truncated(self) -> bool:
        """Whether the completion was cut at ``max_tokens``, or a limit ended its episode."""
        return self.finish_reason == "length"


@dataclass(frozen=True)
class AdapterVersion:
    """An adapter: its name and its folder. Every version has its own name and its own folder."""

    name: str
    path: Path


class RolloutEngine(Protocol):
    """The interface of a sampler.

    It samples from the base model with the current adapter. If no adapter is set, it samples from the base
    model alone.
    """

    @property
    def restarts(self) -> int:
        """Number of times that the sampler ended unexpectedly and was restarted."""

    @property
    def batches(self) -> int:
        """Number of calls of ``generate`` that should run at the same time.

        It is 1 if parallel calls are not faster.
        """

    @property
    def adapters(self) -> int:
        """Number of adapters that requests may use at the same time.

        If it is 1, an adapter is loaded only while no request is sampled.
        """

    @property
    def concurrency(self) -> int:
        """Number of completions that the sampler decodes at the same time. Further requests wait."""

    def wait_until_ready(self) -> None:
        """Wait until the sampler can be used. Raises SamplerError if it cannot be started."""

    def use_adapter(self, adapter: AdapterVersion | None, kept: Sequence[AdapterVersion] = ()) -> None:
        """Make this the current adapter. None: sample from the base model alone.

        ``kept``: adapters that stay loaded too, because requests will still name them. All other adapters are
        unloaded. If the sampler can have only one adapter (``adapters`` is 1), ``kept`` is empty.

        Raises SamplerError if the sampler cannot load an adapter.
        """

    def generate(
        self,
        requests: Sequence[Request],
        should_stop: Callable[[], bool] = lambda: False,
        answered: Callable[[], None] = unnoticed,
    ) -> list[Generated]:
        """Return one completion per request, in the order of the requests.

        ``answered`` is called once for each completion when it arrives. Any thread may call it.

        Raises:
            Preempted: ``should_stop`` returns True.
            SamplerError: the sampler fails permanently.
        """

    def logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """Return the log-prob, in nats, of each token of a text except the first, with the current adapter.

        Temperature is 1, and top-k and top-p are off. Raises SamplerError if the sampler fails permanently.
        """

    def close(self) -> None:
        """Stop the engine and release its resources."""


class Replica(RolloutEngine, Protocol):
    """One of several samplers of a run.

    If it dies, ``attempt`` raises ConnectionLost, and other samplers get its requests.
    """

    def attempt(
        self,
        requests: dict[int, Request],
        done: dict[int, Generated],
        should_stop: Callable[[], bool],
        answered: Callable[[], None] = unnoticed,
    ) -> None:
        """Generate a completion of each request. ``answered``: see ``generate``.

        A completion is put into ``done`` when it arrives. Its key in ``done`` is the key of its request.

        Raises:
            ConnectionLost: the sampler dies.
            Preempted: ``should_stop`` returns True.
            SamplerError: the sampler refuses a request.
        """

    def recover(self, cause: ConnectionLost) -> None:
        """Restart the sampler with its loaded adapters, unless it was already restarted after ``cause``.

        Raises SamplerError if the sampler cannot be restarted.
        """


def rollout_seed(*parts: int | str) -> int:
    """Return a seed from 0 to 2**31 - 1: a hash of parts such as the run's seed, step, row and rollout."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4]) & 0x7FFFFFFF
