"""Records one rollout of several turns, and computes the prompt of the model's next turn.

This module never waits, and calls no other process. The caller gets a ``Turn``, lets the engine sample its
completion, and passes the completion to ``record``.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rft_run.rows.messages import Message
from rft_run.rows.tool_calls import Tools
from rft_trainer.rollout.engine import Generated, Request, SamplingParameters, rollout_seed
from rft_trainer.rollout.gateway.dialogue import Dialogue, MalformedCall, canonical
from rft_trainer.rollout.segments import Segment

Limit = Literal["maxTurns", "maxTokens", "contextLength", "maxSeconds"]


@dataclass(frozen=True)
class RolloutLimits:
    """The limits of a rollout of several turns. At a limit the rollout ends.

    - ``turns``: maximum number of turns.
    - ``tokens``: maximum number of sampled tokens of all turns together.
    - ``context``: maximum number of tokens of a prompt and its completion together.
    - ``seconds``: maximum time in seconds, from the first turn on.
    """

    turns: int
    tokens: int
    context: int
    seconds: float


class LimitReached(Exception):
    """Error: a rollout of several turns has reached a limit. The rollout ends with the turns that it has."""

    def __init__(self, limit: Limit, message: str) -> None:
        super().__init__(message)
        self.limit = limit


@dataclass(frozen=True)
class Turn:
    """The model's next turn in a rollout, which is not sampled yet.

    - ``request``: the request to the sampler, with the token ids of the prompt.
    - ``messages``: the messages of the prompt. None: the prompt was given as a text or as token ids.
    - ``tools``: the tools that the model may call.
    """

    request: Request
    messages: tuple[Message, ...] | None
    tools: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Recorded:
    """A sampled turn of the model: its prompt and its completion.

    ``adapter_version``: the number of the adapter version that sampled this turn.
    """

    prompt_ids: tuple[int, ...]
    generated: Generated
    seed: int
    adapter_version: int


@dataclass(frozen=True)
class _State:
    """A conversation after one of the model's turns: its messages and its tokens.

    - ``history``: the messages, each as a canonical text, so that later requests can be compared.
    - ``ids``: the token ids of the turn's prompt and completion.
    """

    history: tuple[str, ...]
    tools: tuple[dict[str, Any], ...]
    ids: tuple[int, ...]


@dataclass
class _Open:
    """A token sequence (segment) of an unfinished rollout, to which later turns may add tokens.

    - ``prompt_ids``: the token ids of the first prompt.
    - ``token_ids``, ``logprobs``: all tokens after the first prompt, and their log-probs in nats.
    - ``sampled``: for each of these tokens, whether the policy sampled it.
    """

    prompt_ids: tuple[int, ...]
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    sampled: list[bool] = field(default_factory=list)

    def extends(self, prompt_ids: Sequence[int]) -> bool:
        own = (*self.prompt_ids, *self.token_ids)
        return len(own) <= len(prompt_ids) and tuple(prompt_ids[: len(own)]) == own

    def add(self, prompt_ids: Sequence[int], generated: Generated) -> None:
        context = prompt_ids[len(self.prompt_ids) + len(self.token_ids) :]
        self.token_ids += [*context, *generated.token_ids]
        self.logprobs += [*(0.0 for _ in context), *generated.logprobs]
        self.sampled += [*(False for _ in context), *(True for _ in generated.token_ids)]

    def closed(self) -> Segment:
        return Segment(self.prompt_ids, tuple(self.token_ids), tuple(self.logprobs), tuple(self.sampled))


class Session:
    """The record of one rollout of several turns. It computes prompts, and stores the sampled turns.

    Only one thread at a time may call the methods.
    """

    def __init__(
        self,
        dialogue: Dialogue,
        parameters: SamplingParameters,
        limits: RolloutLimits,
        seed: int,
        adapter_version: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin a rollout without turns.

        - ``dialogue``: renders conversations into token ids.
        - ``parameters``: how turns are sampled. Their ``max_tokens`` is the limit of one turn.
        - ``seed``: the seed of the rollout, from which each turn gets its own seed.
        - ``clock``: returns the time in seconds.
        """
        self.turns: list[Recorded] = []
        self.counts: Counter[str] = Counter()
        """Four counts of this rollout, by name.

        - ``toolCalls``: tool calls that could be read
        - ``malformedCalls``: completions with a tool call that could not be read
        - ``forks``: prompts that do not extend the earlier tokens and so began another segment
        - ``ignoredParameters``: sampling parameters of requests that were ignored
        """
        self.limit: Limit | None = None
        """The limit that ended the rollout. None: no limit has ended it."""
        self.adapter_version = adapter_version
        self._dialogue, self._parameters, self._limits, self._seed = dialogue, parameters, limits, seed
        self._clock = clock
        self._began: float | None = None
        self.conversation: list[Message] = []
        """The messages of the newest turn, the last one being the model's answer."""
        self.given = 0
        """Number of messages before the model's first turn."""
        self._states: list[_State] = []
        self._segments: list[_Open] = []

    @property
    def sampled_tokens(self) -> int:
        """Number of tokens that were sampled in all turns."""
        return sum(len(turn.generated.token_ids) for turn in self.turns)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The token sequences of the rollout so far.

        A new segment begins where a prompt does not extend the earlier tokens.
        """
        return tuple(segment.closed() for segment in self._segments)

    def chat(self, messages: Sequence[Message], tools: Tools) -> Turn:
        """Return the model's next turn, which answers the given messages.

        If the messages continue a conversation of this rollout, the new prompt begins with the tokens of this
        conversation. Otherwise the prompt is rendered from the messages. Raises LimitReached at a limit of
        the rollout, and ValueError for messages that cannot be rendered.
        """
        kept, given = tuple(dict(message) for message in messages), tuple(dict(tool) for tool in tools)
        self._refuse_ended((), 1)  # before the messages are rendered, because a template may refuse them
        return self._turn(self._prompt(kept, given), kept, given)

    def complete(self, prompt: str | Sequence[int]) -> Turn:
        """Return the model's next turn, which continues ``prompt``: the whole prompt as text or token ids.

        Raises LimitReached at a limit of the rollout, and ValueError for a token id that the model does not
        know.
        """
        known = self._dialogue.vocabulary
        if not isinstance(prompt, str) and max(prompt, default=0) >= known:
            raise ValueError(
                f"prompt has the token id {max(prompt)}, which is not in the model's vocabulary;"
                f" allowed are 0 to {known - 1}"
            )
        ids = self._dialogue.encode(prompt) if isinstance(prompt, str) else tuple(prompt)
        return self._turn(ids, None, ())

    def record(self, turn: Turn, generated: Generated) -> Message:
        """Store the completion ``generated`` of a turn, and return it as the assistant's message.

        Raises MalformedCall if the completion has a tool call that cannot be read. Even then, the completion
        is stored.
        """
        prompt_ids = turn.request.prompt_token_ids
        self._place(prompt_ids).add(prompt_ids, generated)
        self.turns.append(Recorded(prompt_ids, generated, turn.request.seed, self.adapter_version))
        if turn.messages is None:
            prompt = self._dialogue.decode(prompt_ids)
            answer = {"role": "assistant", "content": generated.text}
            self._note([{"role": "user", "content": prompt}], answer)
            return answer
        try:
            message = self._dialogue.message(prompt_ids, generated.token_ids, generated.text, turn.tools)
        except MalformedCall:
            self.counts["malformedCalls"] += 1
            self._remember(turn, {"role": "assistant", "content": generated.text}, generated)
            raise
        for number, call in enumerate(message.get("tool_calls", ())):
            call["id"] = f"call_{len(self.turns)}_{number}"
            self.counts["toolCalls"] += 1
        self._remember(turn, message, generated)
        return message

    def _note(self, messages: Sequence[Message], answer: Message) -> None:
        self.conversation = [*messages, answer]
        self.given = len(messages) if len(self.turns) == 1 else min(self.given, len(messages))

    def _remember(self, turn: Turn, message: Message, generated: Generated) -> None:
        self._note(turn.messages or (), message)
        history = tuple(canonical([*(turn.messages or ()), message]))
        ids = (*turn.request.prompt_token_ids, *generated.token_ids)
        self._states.append(_State(history, turn.tools, ids))

    def _prompt(self, messages: tuple[Message, ...], tools: tuple[dict[str, Any], ...]) -> tuple[int, ...]:
        history = tuple(canonical(messages))
        known = [
            state
            for state in self._states
            if state.tools == tools
            and len(state.history) < len(history)
            and history[: len(state.history)] == state.history
        ]
        if not known:
            return self._dialogue.first(messages, tools)
        longest = max(known, key=lambda state: len(state.history))
        return longest.ids + self._dialogue.tail(messages, len(longest.history) - 1, longest.ids[-1], tools)

    def _turn(
        self,
        prompt_ids: tuple[int, ...],
        messages: tuple[Message, ...] | None,
        tools: tuple[dict[str, Any], ...],
    ) -> Turn:
        most = min(
            self._parameters.max_tokens,
            self._limits.tokens - self.sampled_tokens,
            self._limits.context - len(prompt_ids),
        )
        self._refuse_ended(prompt_ids, most)
        seed = rollout_seed(self._seed, "turn", len(self.turns))
        # The first turn has the rollout's own seed, as a single answer has.
        request = Request(
            prompt_ids, seed if self.turns else self._seed, replace(self._parameters, max_tokens=most)
        )
        return Turn(request, messages, tools)

    @property
    def late(self) -> bool:
        """Whether the rollout has taken longer than its time limit. The time begins with the first turn."""
        return self._began is not None and self._clock() - self._began > self._limits.seconds

    def _refuse_ended(self, prompt_ids: Sequence[int], most: int) -> None:
        self._began = self._clock() if self._began is None else self._began
        limits = self._limits
        if len(self.turns) >= limits.turns:
            self._end("maxTurns", f"the rollout has reached its limit of {limits.turns} turns")
        if self.late:
            self._end("maxSeconds", f"the rollout took longer than {limits.seconds:g} s")
        if self.sampled_tokens >= limits.tokens:
            self._end("maxTokens", f"the rollout has reached its limit of {limits.tokens} sampled tokens")
        if most < 1:
            self._end(
                "contextLength",
                f"the prompt of {len(prompt_ids)} tokens leaves no room in the context of {limits.context}",
            )

    def _end(self, limit: Limit, message: str) -> None:
        self.limit = limit
        raise LimitReached(limit, message)

    def _place(self, prompt_ids: tuple[int, ...]) -> _Open:
        """Return the token sequence (segment) to which a turn with this prompt is added.

        This is the longest segment whose tokens are the beginning of the prompt. If there is none, make a new
        segment.
        """
        fitting = [segment for segment in self._segments if segment.extends(prompt_ids)]
        if fitting:
            return max(fitting, key=lambda segment: len(segment.token_ids))
        if self._segments:
            self.counts["forks"] += 1
        self._segments.append(_Open(prompt_ids))
        return self._segments[-1]
