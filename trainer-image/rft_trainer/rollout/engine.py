"""The interface of samplers. A sampler gets prompts as token ids, and returns completions with log-probs."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from rft_trainer.rollout.segments import Episode

FinishReason = Literal["stop", "length"]
BASE_NAME = "base"
"""The adapter name in requests that must be sampled by the base model without an adapter."""


def unnoticed() -> None:
    """Do nothing. This is the default value of the callback that samplers call for each completion."""


class ConnectionLost(Exception):
    """Error: the connection to a sampler was lost. Requests without an answer may be sent again."""

    restarts = 0
    """Number of restarts that the sampler already had when the lost requests were sent."""


@dataclass(frozen=True)
class SamplingParameters:
    """How the tokens of a completion are sampled, and what ends a completion.

    - ``temperature``: 0 is greedy decoding.
    - ``top_p``: 1 is off.
    - ``top_k``: 0 is off.
    - ``max_tokens``: the maximum length of a completion, in tokens.
    - ``stop``: texts. Each of them ends a completion.
    - ``stop_token_ids``: token ids. Each of them ends a completion.

    The tokens of a completion include the token that ended it, such as an end token.
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
        """Return parameters that samplers accept: top-p 0, which samplers refuse, is replaced by top-k 1.

        With either of the two, the most probable token is always sampled.
        """
        if self.top_p > 0:
            return self
        return replace(self, top_p=1.0, top_k=1)


@dataclass(frozen=True)
class Request:
    """A request to a sampler for one completion of one prompt.

    ``seed``: the seed from which all tokens of the completion are sampled.
    ``adapter``: the name of the adapter that samples, or ``BASE_NAME``. None: the sampler's current adapter.
    """

    prompt_token_ids: tuple[int, ...]
    seed: int
    parameters: SamplingParameters
    adapter: str | None = None


@dataclass(frozen=True)
class Generated:
    """A sampled completion: a single answer, or all turns of the model in a rollout of several turns.

    An episode is the record of a rollout of several turns, with messages, tool calls and reward.

    - ``token_ids``: the sampled tokens. If there is an episode, the tokens of all its turns.
    - ``logprobs``: the log-prob of each token by the sampler, after temperature, top-k and top-p, in nats.
    - ``text``: the text of the completion. If there is an episode, the text of its last turn.
    - ``finish_reason``: "length" if the completion was cut at ``max_tokens``, or if a limit ended its
      episode; else "stop".
    - ``episode``: None if the completion is a single answer.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: FinishReason
    episode: Episode | None = None

    @property
    def truncated(self) -> bool:
        """Whether the completion was cut at ``max_tokens``, or a limit ended its rollout of several turns."""
        return self.finish_reason == "length"


@dataclass(frozen=True)
class AdapterVersion:
    """A version of the LoRA adapter on disk: its name and its folder. Every version has its own ones."""

    name: str
    path: Path


class RolloutEngine(Protocol):
    """The interface of a sampler, which samples completions from the base model with the current adapter.

    If no adapter is set, completions are sampled from the base model alone.
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
        """Load ``adapter`` and make it the current adapter. None: sample from the base model alone.

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
        """Sample one completion for each request. Return them in the order of the requests.

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
    """The interface of one of several samplers of a run.

    If the sampler dies, ``attempt`` raises ConnectionLost, and other samplers get the unanswered requests.
    """

    def attempt(
        self,
        requests: dict[int, Request],
        done: dict[int, Generated],
        should_stop: Callable[[], bool],
        answered: Callable[[], None] = unnoticed,
    ) -> None:
        """Sample a completion for each request, and put it into ``done`` under the key of its request.

        A completion is put there when it arrives, or when this call ends. ``answered`` is called once for
        each completion. Any thread may call it.

        Raises:
            ConnectionLost: the sampler dies.
            Preempted: ``should_stop`` returns True.
            SamplerError: the sampler refuses a request.
        """

    def recover(self, cause: ConnectionLost) -> None:
        """Restart the sampler, and load its adapters again, after its death caused the error ``cause``.

        If the sampler was already restarted since then, do not restart it again.

        Raises SamplerError if the sampler cannot be restarted.
        """


def rollout_seed(*parts: int | str) -> int:
    """Return a seed from 0 to 2**31 - 1: a hash of ``parts``, such as the run's seed and a step's number."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4]) & 0x7FFFFFFF
