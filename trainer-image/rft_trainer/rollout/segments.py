"""Segments: the token sequences of a rollout of several turns, with the tokens that the policy sampled.

Usually a rollout is one segment: the first prompt, the model's turn, a tool's result, the model's next turn,
and so on. Where a later prompt does not extend the earlier tokens, the rollout goes on in another segment.
All segments of a rollout have its reward and its advantage.
"""

from dataclasses import dataclass

from rft_graders.client import Graded
from rft_run.rows.messages import Message


@dataclass(frozen=True)
class Segment:
    """The first prompt of a segment, and all tokens after it.

    ``logprobs`` are by the sampler, in nats. They are 0 for context. ``sampled``: whether the policy sampled
    the token in this segment. All other tokens are context, such as the result of a tool: they have no loss.
    """

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    sampled: tuple[bool, ...]

    @property
    def trained(self) -> int:
        """Number of tokens with a loss."""
        return sum(self.sampled)


@dataclass(frozen=True)
class Episode:
    """What happened in a rollout of several turns.

    ``messages`` is the whole conversation. The first ``given`` messages were there before the model's first
    turn. ``reward`` is the environment's reward or error; None: not known. ``limit`` is the limit that ended
    the rollout. ``seconds`` is the time that the rollout took. In ``waiting_seconds`` of this time it waited
    for its environment. ``refused`` requests at the endpoint of an agent's rollout were
    refused: they had another token, could not be read, or reported a second reward.
    """

    segments: tuple[Segment, ...]
    messages: tuple[Message, ...] = ()
    given: int = 0
    reward: Graded | None = None
    turns: int = 0
    tool_calls: int = 0
    tool_errors: int = 0
    limit: str | None = None
    seconds: float = 0.0
    waiting_seconds: float = 0.0
    refused: int = 0
