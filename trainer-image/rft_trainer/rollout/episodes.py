"""Plays rollouts of several turns: the model answers, and the environment answers the model.

All open rollouts make a turn together, so that the engine gets large batches. Then their environments act,
and the next turn begins. A rollout depends only on its own seed and its own environment, not on other
rollouts.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rft_api.environment import Environment
from rft_graders.client import Graded
from rft_graders.printed import MAX_PRINTED_BYTES
from rft_graders.scorer import Act, Scorer
from rft_run.errors import ConfigurationError
from rft_run.rows.messages import Message
from rft_trainer.data import Prompt
from rft_trainer.rollout.engine import Generated, Request, RolloutEngine
from rft_trainer.rollout.gateway.dialogue import Dialogue, MalformedCall, Unextendable
from rft_trainer.rollout.gateway.session import LimitReached, RolloutLimits, Session, Turn
from rft_trainer.rollout.segments import Episode

ShouldStop = Callable[[], bool]


@dataclass
class _Playing:
    """The state of a rollout that is played now, and the slot of its environment."""

    prompt: Prompt
    slot: int
    session: Session
    messages: list[Message]
    given: int
    tool_calls: int = 0
    tool_errors: int = 0
    waiting_seconds: float = 0.0
    printed: str = ""
    forged: int = 0
    over: bool = False
    began: float = field(default_factory=time.monotonic)
    reward: float | ValueError | None = None
    """The reward, or the error that ended the rollout. None: the environment has not returned it yet."""
    calls: deque[dict[str, Any]] = field(default_factory=deque)
    """The tool calls of the last turn that have not been made yet."""

    def end(self, error: ValueError | None = None) -> None:
        """Make no more turns."""
        self.over, self.reward = True, error

    def generated(self) -> Generated:
        """Return the tokens of all turns, the text of the last one, and how the rollout went."""
        turns = [turn.generated for turn in self.session.turns]
        cut = self.session.limit is not None or (bool(turns) and turns[-1].truncated)
        episode = Episode(
            segments=self.session.segments,
            messages=tuple(self.messages),
            given=self.given,
            reward=Graded(self.reward if self.reward is not None else 0.0, self.printed, self.forged),
            turns=len(turns),
            tool_calls=self.tool_calls,
            tool_errors=self.tool_errors,
            limit=self.session.limit,
            seconds=time.monotonic() - self.began,
            waiting_seconds=self.waiting_seconds,
        )
        return Generated(
            token_ids=tuple(token for turn in turns for token in turn.token_ids),
            logprobs=tuple(value for turn in turns for value in turn.logprobs),
            text=turns[-1].text if turns else "",
            finish_reason="length" if cut else "stop",
            episode=episode,
        )


class Episodes:
    """Plays the rollouts of a job with an environment."""

    def __init__(
        self, settings: Environment, dialogue: Dialogue, engine: RolloutEngine, scorer: Scorer, context: int
    ) -> None:
        """Prepare, and start nothing. ``context``: maximum tokens of a prompt with its completion."""
        self._settings, self._dialogue = settings, dialogue
        self._engine, self._scorer, self._context = engine, scorer, context
        self._tools: list[dict[str, Any]] | None = None
        self._replies = False

    def generate(
        self, prompts: Sequence[Prompt], requests: Sequence[Request], should_stop: ShouldStop
    ) -> list[Generated]:
        """Return a completion with its episode for each request, in order. Requests of one prompt are
        together.

        Raises Preempted, ConfigurationError for a chat template that cannot continue a conversation, and the
        errors of engine and grader container.
        """
        if self._tools is None:
            self._describe(should_stop)
        count = len(requests) // max(1, len(prompts))
        waiting = deque(enumerate(requests))
        free = deque(range(self._settings.concurrency))
        open_: dict[int, _Playing] = {}
        done: dict[int, Generated] = {}
        while waiting or open_:
            begun = []
            while waiting and free:
                index, request = waiting.popleft()
                open_[index] = self._begin(prompts[index // count], request, free.popleft())
                begun.append(open_[index])
            self._reset(begun, should_stop)
            self._turn([one for one in open_.values() if not one.over], should_stop)
            over = {index: one for index, one in open_.items() if one.over}
            self._score(list(over.values()), should_stop)
            for index, one in over.items():
                done[index] = one.generated()
                free.append(open_.pop(index).slot)
        return [done[index] for index in range(len(requests))]

    def _describe(self, should_stop: ShouldStop) -> None:
        (said,) = self._scorer.act([Act(0, {"do": "describe"})], should_stop)
        if said.value is None:
            raise ConfigurationError(f"spec.environment.python: {said.outcome}")
        self._tools, self._replies = list(said.value["tools"]), bool(said.value["replies"])

    def _begin(self, prompt: Prompt, request: Request, slot: int) -> _Playing:
        settings, each = self._settings, request.parameters.max_tokens
        limits = RolloutLimits(
            turns=settings.max_turns,
            tokens=settings.most_tokens(each),
            context=self._context,
            seconds=settings.max_seconds,
        )
        session = Session(self._dialogue, request.parameters, limits, request.seed)
        return _Playing(prompt, slot, session, [dict(m) for m in prompt.row.messages], 0)

    def _reset(self, begun: Sequence[_Playing], should_stop: ShouldStop) -> None:
        rows = [{**one.prompt.row.fields, "messages": list(one.prompt.row.messages)} for one in begun]
        acts = [{"do": "reset", "row": row} for row in rows]
        for one, said in zip(begun, self._act(begun, acts, should_stop), strict=True):
            if said is not None and "text" in said:
                _append(one.messages, said["text"])
            one.given = len(one.messages)

    def _turn(self, playing: Sequence[_Playing], should_stop: ShouldStop) -> None:
        """Make one turn in each rollout: the model answers, then the environment answers the model."""
        asked = [(one, turn) for one in playing if (turn := self._asked(one)) is not None]
        requests = [turn.request for _, turn in asked]
        generated = self._engine.generate(requests, should_stop) if requests else []
        silent = []
        for (one, turn), completion in zip(asked, generated, strict=True):
            try:
                message = one.session.record(turn, completion)
            except MalformedCall as error:
                one.tool_errors += 1
                one.messages.append({"role": "assistant", "content": completion.text})
                one.messages.append(_result(None, _failure(str(error))))
                continue
            one.messages.append(message)
            one.calls.extend(message.get("tool_calls", ()))
            if not one.calls:
                silent.append(one)
        self._reply(silent, should_stop)
        while calling := [one for one, _ in asked if one.calls and not one.over]:
            for one in calling:
                if one.session.late:
                    one.session.limit = "maxSeconds"
                    one.end()
            self._call([one for one in calling if not one.over], should_stop)

    def _asked(self, one: _Playing) -> Turn | None:
        """Return the next turn of a rollout, None if a limit ends it."""
        try:
            return one.session.chat(one.messages, self._tools or [])
        except LimitReached:
            one.end()
        except Unextendable as error:
            raise ConfigurationError(f"spec.environment: {error}") from error
        except ValueError as error:
            one.end(error)
        return None

    def _call(self, calling: Sequence[_Playing], should_stop: ShouldStop) -> None:
        """Make the next tool call of each rollout."""
        calls = [one.calls.popleft() for one in calling]
        acts = [
            {
                "do": "call",
                "name": call["function"]["name"],
                "arguments": json.loads(call["function"]["arguments"]),
            }
            for call in calls
        ]
        for one, call, said in zip(calling, calls, self._act(calling, acts, should_stop), strict=True):
            one.tool_calls += 1
            if said is None:
                continue
            if "failed" in said:
                one.tool_errors += 1
            content = _failure(said["failed"]) if "failed" in said else said["text"]
            one.messages.append(_result(call, content))

    def _reply(self, silent: Sequence[_Playing], should_stop: ShouldStop) -> None:
        """Send turns without tool calls to the environment. If it returns no message, the rollout is over."""
        if not self._replies:
            for one in silent:
                one.end()
            return
        acts = [{"do": "reply", "text": one.messages[-1]["content"]} for one in silent]
        for one, said in zip(silent, self._act(silent, acts, should_stop), strict=True):
            if said is not None and "text" in said:
                one.messages.append({"role": "user", "content": said["text"]})
            elif said is not None:
                one.end()

    def _score(self, over: Sequence[_Playing], should_stop: ShouldStop) -> None:
        """Ask the environments for the rewards of rollouts that ended without an error."""
        ended = [one for one in over if one.reward is None]
        # The next rollout in the slot must not see files and processes of one that gets no reward.
        failed = [Act(one.slot, {"do": "end"}) for one in over if one.reward is not None]
        if failed:
            self._scorer.act(failed, should_stop)
        for one, said in zip(
            ended, self._act(ended, [{"do": "reward"}] * len(ended), should_stop), strict=True
        ):
            if said is not None:
                one.reward = float(said["reward"])

    def _act(
        self, playing: Sequence[_Playing], acts: Sequence[dict[str, Any]], should_stop: ShouldStop
    ) -> list[dict[str, Any] | None]:
        """Run actions of environments. Return each result, None if it failed. A failure ends the rollout."""
        if not playing:
            return []
        started = time.monotonic()
        replies = self._scorer.act([Act(o.slot, a) for o, a in zip(playing, acts, strict=True)], should_stop)
        seconds = time.monotonic() - started
        found: list[dict[str, Any] | None] = []
        for one, act, reply in zip(playing, acts, replies, strict=True):
            one.waiting_seconds += seconds
            one.printed = (one.printed + reply.printed)[:MAX_PRINTED_BYTES]
            one.forged += reply.forged
            try:
                if isinstance(reply.outcome, ValueError):
                    raise reply.outcome
                found.append(_checked(act["do"], reply.value or {}))
            except ValueError as error:
                one.end(error)
                found.append(None)
        return found


def _checked(asked: str, said: dict[str, Any]) -> dict[str, Any]:
    """Return what an environment said, without lone surrogates, which no tokenizer accepts.

    Raises ValueError for a wrong form: users' code can change what the environment's process writes.
    """
    texts = {name: said[name] for name in ("text", "failed") if name in said}
    reward = said.get("reward")
    fits = all(isinstance(text, str) for text in texts.values())
    fits = fits and (asked != "call" or bool(texts))
    fits = fits and (asked != "reward" or (isinstance(reward, int | float) and abs(reward) < 1e300))
    if not fits:
        raise ValueError(f"the environment's process answered {asked} in a wrong form")
    return said | {name: text.encode(errors="replace").decode() for name, text in texts.items()}


def _append(messages: list[Message], text: str) -> None:
    """Append the text that ``reset`` returned to the last message of the user, as TRL does."""
    if messages and messages[-1]["role"] == "user":
        messages[-1] = {**messages[-1], "content": messages[-1]["content"] + text}
    else:
        messages.append({"role": "user", "content": text})


def _failure(text: str) -> str:
    return json.dumps({"error": text}, ensure_ascii=False)


def _result(call: dict[str, Any] | None, content: str) -> Message:
    named = {} if call is None else {"tool_call_id": call["id"], "name": call["function"]["name"]}
    return {"role": "tool", "content": content, **named}
