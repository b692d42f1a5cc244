"""What the trainer asks of a sampler: tokens in, tokens and the sampler's own log-probabilities out."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class SamplingParameters:
    """How tokens are drawn. ``top_k`` 0 and ``top_p`` 1 are off; temperature 0 is greedy."""

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    stop: tuple[str, ...] = ()

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        return self.temperature == 0

    @classmethod
    def greedily(cls, max_tokens: int, stop: Sequence[str] | None = None) -> "SamplingParameters":
        """Greedy decoding, which carries neither top-k nor top-p."""
        return cls(temperature=0.0, top_p=1.0, top_k=0, max_tokens=max_tokens, stop=tuple(stop or ()))

    def effective(self) -> "SamplingParameters":
        """Spell "only the most probable token" (top-p 0) as samplers understand it: top-k 1, top-p 1."""
        if self.top_p > 0:
            return self
        return SamplingParameters(self.temperature, 1.0, 1, self.max_tokens, self.stop)


@dataclass(frozen=True)
class Request:
    """One completion of one prompt."""

    prompt_token_ids: tuple[int, ...]
    seed: int
    parameters: SamplingParameters


@dataclass(frozen=True)
class Generated:
    """One completion. ``logprobs`` are the sampler's, of the processed distribution, in nats."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: FinishReason

    @property
    def truncated(self) -> bool:
        """Whether it was cut at ``max_tokens``."""
        return self.finish_reason == "length"


@dataclass(frozen=True)
class AdapterVersion:
    """An immutable adapter folder under a name never used before."""

    name: str
    path: Path


class RolloutEngine(Protocol):
    """A sampler of the base model, with at most one current adapter."""

    restarts: int
    """Times the sampler died and was started again in place."""

    def use_adapter(self, adapter: AdapterVersion | None) -> None:
        """Sample from this version from now on; None is the base model. Raises SamplerError."""

    def generate(
        self, requests: Sequence[Request], should_stop: Callable[[], bool] = lambda: False
    ) -> list[Generated]:
        """Return one completion per request, in order.

        Raises Preempted once ``should_stop`` says so, SamplerError when the sampler cannot go on.
        """

    def close(self) -> None:
        """End whatever was started."""


def rollout_seed(*parts: int | str) -> int:
    """Hash (seed, step, row, rollout) to a request seed in [0, 2**31)."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4]) & 0x7FFFFFFF
