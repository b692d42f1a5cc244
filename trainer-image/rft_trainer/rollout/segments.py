"""Data classes for rollouts of several turns: their token sequences (segments), and their record (episode).

Usually a rollout is one segment: the first prompt, the model's turn, a tool's result, the model's next turn,
and so on. If a later prompt does not extend the earlier tokens, it begins another segment. All segments of a
rollout have the reward and the advantage of the rollout.
"""

from dataclasses import dataclass

from rft_graders.client import Graded
from rft_run.rows.messages import Message


@dataclass(frozen=True)
class Segment:
    """A token sequence of a rollout of several turns: a prompt, and all tokens that follow it.

    Usually a rollout is one segment. If a later prompt of the rollout does not extend the earlier tokens,
    another segment begins.

    - ``prompt_ids``: the token ids of the segment's first prompt.
    - ``token_ids``: the ids of all tokens after the first prompt.
    - ``logprobs``: the log-prob of each of these tokens by the sampler, in nats. 0 for context.
    - ``sampled``: for each of these tokens, whether the policy sampled it in this segment. All other tokens
      are context, such as the result of a tool. Context has no loss.
    """

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    sampled: tuple[bool, ...]

    @property
    def trained(self) -> int:
        """Number of tokens that the policy sampled. Only these tokens have a loss."""
        return sum(self.sampled)


@dataclass(frozen=True)
class Episode:
    """The record of a finished rollout of several turns: its tokens, messages, reward and counts.

    - ``segments``: the token sequences of the rollout. Usually it is one.
    - ``messages``: the whole conversation.
    - ``given``: number of messages before the model's first turn.
    - ``reward``: the reward that the environment gave, or its error. None: not known.
    - ``turns``: number of turns of the model.
    - ``tool_calls``: number of tool calls of the model.
    - ``tool_errors``: number of tool calls that failed or could not be read.
    - ``limit``: the limit that ended the rollout, such as ``maxTurns``. None: no limit ended it.
    - ``seconds``: the time that the rollout took, in seconds.
    - ``waiting_seconds``: the time for which the rollout waited for its environment. It is included in
      ``seconds``.
    - ``refused``: number of refused HTTP requests of an agent that plays the rollout. A request is refused if
      it has a wrong access token, cannot be read, or reports a second reward.
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
