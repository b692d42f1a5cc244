"""Plays rollouts of several turns: the model answers, and the environment answers the model.

Each rollout goes on as soon as its own turn is sampled or its own environment has answered. It depends on its
own seed and its own environment only, not on the others.
"""

import json
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from rft_trainer.rollout.stage import FIRST_BATCH_SECONDS, Begin, Pace, Stage, Steps

ShouldStop = Callable[[], bool]


@dataclass
class _Playing:
    """A rollout that is played."""

    prompt: Prompt
    session: Session
    messages: list[Message]
    given: int
    tool_calls: int = 0
    tool_errors: int = 0
    waiting_seconds: float = 0.0
    printed: str = ""
    forged: int = 0
    began: float = field(default_factory=time.monotonic)
    reward: float | ValueError = 0.0
    """The reward, or the error that ended the rollout."""

    def generated(self) -> Generated:
        """Return the tokens of all turns, the text of the last one, and how the rollout went."""
        turns = [turn.generated for turn in self.session.turns]
        cut = self.session.limit is not None or (bool(turns) and turns[-1].truncated)
        episode = Episode(
            segments=self.session.segments,
            messages=tuple(self.messages),
            given=self.given,
            reward=Graded(self.reward, self.printed, self.forged),
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
        self,
        settings: Environment,
        dialogue: Dialogue,
        engine: RolloutEngine,
        scorer: Scorer,
        context: int,
        *,
        together: bool = False,
    ) -> None:
        """``context``: maximum length in tokens of a prompt and its completion. ``together``: see ``Pace``.
        Nothing is started.
        """
        self._settings, self._dialogue = settings, dialogue
        self._engine, self._scorer, self._context = engine, scorer, context
        self._pace = Pace(settings.concurrency, min(engine.batches, settings.concurrency), together)
        self._batch_seconds = FIRST_BATCH_SECONDS
        self._tools: list[dict[str, Any]] | None = None
        self._replies = False

    def generate(
        self, prompts: Sequence[Prompt], requests: Sequence[Request], should_stop: ShouldStop
    ) -> list[Generated]:
        """Return a completion with its episode for each request, in order. Those of one prompt are together.

        Raises Preempted, ConfigurationError for a chat template that cannot continue a conversation, and the
        errors of engine and grader container.
        """
        if self._tools is None:
            self._describe(should_stop)
        count = len(requests) // max(1, len(prompts))
        done: dict[int, Generated] = {}
        failed = threading.Event()

        def stop() -> bool:
            return failed.is_set() or should_stop()

        def begin(index: int) -> Begin:
            return lambda _: self._played(index, prompts[index // count], requests[index], done)

        with self._scorer.acting(stop) as acting, ThreadPoolExecutor(self._pace.batches, "turns") as threads:
            stage = Stage(
                self._pace,
                lambda turns: threads.submit(self._engine.generate, turns, stop),
                lambda slot, what: acting.begin(Act(slot, what)),
                should_stop,
                self._batch_seconds,
            )
            try:
                stage.play([begin(index) for index in range(len(requests))])
            except BaseException:
                failed.set()  # so that engine and environments stop, which the end of ``with`` waits for
                raise
            self._batch_seconds = stage.batch_seconds
        return [done[index] for index in range(len(requests))]

    def _describe(self, should_stop: ShouldStop) -> None:
        said = self._scorer.act(Act(0, {"do": "describe"}), should_stop)
        if said.value is None:
            raise ConfigurationError(f"spec.environment.python: {said.outcome}")
        self._tools, self._replies = list(said.value["tools"]), bool(said.value["replies"])

    def _played(self, index: int, prompt: Prompt, request: Request, done: dict[int, Generated]) -> Steps:
        """Play a rollout from its reset to its reward, and put it into ``done``."""
        one = self._begun(prompt, request)
        try:
            yield from self._turns(one)
        except ValueError as error:
            one.reward = error
            # The next rollout in the slot must not see files and processes of this one.
            yield {"do": "end"}
        else:
            try:
                one.reward = float((yield from self._act(one, {"do": "reward"}))["reward"])
            except ValueError as error:
                one.reward = error
        done[index] = one.generated()

    def _begun(self, prompt: Prompt, request: Request) -> _Playing:
        settings, each = self._settings, request.parameters.max_tokens
        limits = RolloutLimits(
            turns=settings.max_turns,
            tokens=settings.most_tokens(each),
            context=self._context,
            seconds=settings.max_seconds,
        )
        session = Session(self._dialogue, request.parameters, limits, request.seed)
        messages = [dict(message) for message in prompt.row.messages]
        return _Playing(prompt, session, messages, len(messages))

    def _turns(self, one: _Playing) -> Steps:
        """Make turns until a limit or the environment ends the rollout. Raises ValueError for an error."""
        row = {**one.prompt.row.fields, "messages": list(one.prompt.row.messages)}
        begun = yield from self._act(one, {"do": "reset", "row": row})
        if "text" in begun:
            _append(one.messages, begun["text"])
        one.given = len(one.messages)
        while (turn := self._next(one)) is not None:
            completion = yield turn.request
            try:
                message = one.session.record(turn, completion)
            except MalformedCall as error:
                one.tool_errors += 1
                one.messages.append({"role": "assistant", "content": completion.text})
                one.messages.append(_result(None, _failure(str(error))))
                continue
            one.messages.append(message)
            calls = message.get("tool_calls", ())
            for call in calls:
                if one.session.late:
                    one.session.limit = "maxSeconds"
                    return
                yield from self._call(one, call)
            if not calls and not (yield from self._reply(one)):
                return

    def _next(self, one: _Playing) -> Turn | None:
        """Return the next turn of a rollout, None if a limit ends it."""
        try:
            return one.session.chat(one.messages, self._tools or [])
        except LimitReached:
            return None
        except Unextendable as error:
            raise ConfigurationError(f"spec.environment: {error}") from error

    def _call(self, one: _Playing, call: dict[str, Any]) -> Steps:
        """Make a tool call, and tell the model its result."""
        function = call["function"]
        arguments = json.loads(function["arguments"])
        one.tool_calls += 1
        said = yield from self._act(one, {"do": "call", "name": function["name"], "arguments": arguments})
        if "failed" in said:
            one.tool_errors += 1
        one.messages.append(_result(call, _failure(said["failed"]) if "failed" in said else said["text"]))

    def _reply(self, one: _Playing) -> Generator[Any, Any, bool]:
        """Answer a turn without tool calls. Return whether there is an answer, so that the rollout goes on."""
        if not self._replies:
            return False
        said = yield from self._act(one, {"do": "reply", "text": one.messages[-1]["content"]})
        if "text" in said:
            one.messages.append({"role": "user", "content": said["text"]})
        return "text" in said

    def _act(self, one: _Playing, act: dict[str, Any]) -> Generator[Any, Graded, dict[str, Any]]:
        """Let the environment act. Return what it says. Raises ValueError if it fails."""
        began = time.monotonic()
        reply = yield act
        one.waiting_seconds += time.monotonic() - began
        one.printed = (one.printed + reply.printed)[:MAX_PRINTED_BYTES]
        one.forged += reply.forged
        if isinstance(reply.outcome, ValueError):
            raise reply.outcome
        return _checked(act["do"], reply.value or {})


def _checked(asked: str, said: dict[str, Any]) -> dict[str, Any]:
    """Return what an environment said, without lone surrogates, which no tokenizer takes.

    Raises ValueError for another form: users' code can change what its process writes.
    """
    texts = {name: said[name] for name in ("text", "failed") if name in said}
    reward = said.get("reward")
    fits = all(isinstance(text, str) for text in texts.values())
    fits = fits and (asked != "call" or bool(texts))
    fits = fits and (asked != "reward" or (isinstance(reward, int | float) and abs(reward) < 1e300))
    if not fits:
        raise ValueError(f"the environment's process answered {asked} in a form that is not its own")
    return said | {name: text.encode(errors="replace").decode() for name, text in texts.items()}


def _append(messages: list[Message], text: str) -> None:
    """Add the text of ``reset`` to the last message of the user, as TRL does."""
    if messages and messages[-1]["role"] == "user":
        messages[-1] = {**messages[-1], "content": messages[-1]["content"] + text}
    else:
        messages.append({"role": "user", "content": text})


def _failure(text: str) -> str:
    return json.dumps({"error": text}, ensure_ascii=False)


def _result(call: dict[str, Any] | None, content: str) -> Message:
    named = {} if call is None else {"tool_call_id": call["id"], "name": call["function"]["name"]}
    return {"role": "tool", "content": content, **named}
