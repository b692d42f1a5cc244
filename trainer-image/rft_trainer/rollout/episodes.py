"""Plays rollouts of several turns between the model and the environment of a job.

The environment is users' code, which runs tools, answers the model, and gives a reward at the end.

A rollout does not wait for other rollouts. It continues as soon as its turn is sampled or its environment has
answered. Its result depends only on its own seed and its own environment.

If the environment is an agent, the agent plays the rollout itself. It gets a base URL and an API key, and
calls the model as often as it wants.
"""

import json
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rft_api.environment import Environment
from rft_graders.client import Graded
from rft_graders.printed import MAX_PRINTED_BYTES
from rft_graders.scorer import Act, Scorer
from rft_run.errors import ConfigurationError
from rft_run.rows.messages import Message
from rft_run.rows.turns import add_first_text, failure
from rft_trainer.data import Prompt
from rft_trainer.rollout.engine import Generated, Request, RolloutEngine
from rft_trainer.rollout.gateway.dialogue import Dialogue, MalformedCall, Unextendable
from rft_trainer.rollout.gateway.sampler import BatchSampler
from rft_trainer.rollout.gateway.server import Gateway, OpenRollout
from rft_trainer.rollout.gateway.session import LimitReached, RolloutLimits, Session, Turn
from rft_trainer.rollout.players import FIRST_BATCH_SECONDS, Begin, Players, Steps, TurnPace
from rft_trainer.rollout.segments import Episode

ShouldStop = Callable[[], bool]


@dataclass
class _Playing:
    """A rollout of several turns that is being played: its messages, counts and times so far.

    - ``session``: the record of the sampled turns.
    - ``given``: number of messages before the model's first turn.
    - ``waiting_seconds``: the time for which the rollout has waited for its environment, in seconds.
    - ``printed``: the text that the environment's code has printed.
    - ``refused``: number of refused HTTP requests of an agent.
    - ``began``: the time of the start, by ``time.monotonic``.
    """

    prompt: Prompt
    session: Session
    messages: list[Message]
    given: int
    tool_calls: int = 0
    tool_errors: int = 0
    waiting_seconds: float = 0.0
    printed: str = ""
    forged: int = 0
    refused: int = 0
    began: float = field(default_factory=time.monotonic)
    reward: float | ValueError = 0.0
    """The reward, or the error that ended the rollout."""

    def take_over(self, closed: OpenRollout) -> None:
        """Set the messages, the counts and the waiting time of a rollout that an agent has played to its end.

        The values come from the session and from ``closed``: the rollout at the HTTP endpoint for agents. The
        time in which the model sampled turns does not count as waiting.
        """
        self.messages, self.given = self.session.conversation, self.session.given
        self.tool_calls = self.session.counts["toolCalls"]
        self.tool_errors = self.session.counts["malformedCalls"]
        self.refused = closed.refused
        self.waiting_seconds = max(0.0, self.waiting_seconds - closed.sampling_seconds)

    def generated(self) -> Generated:
        """Return the result of the finished rollout: tokens of all turns, last text, and the ``Episode``."""
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
            refused=self.refused,
        )
        return Generated(
            token_ids=tuple(token for turn in turns for token in turn.token_ids),
            logprobs=tuple(value for turn in turns for value in turn.logprobs),
            text=turns[-1].text if turns else "",
            finish_reason="length" if cut else "stop",
            episode=episode,
        )


class Episodes:
    """Plays rollouts of several turns, in a job with an environment.

    The environment is users' code, which answers the model, or an agent, which calls the model itself.
    """

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
        """Store the arguments. No rollout is started.

        - ``settings``: the environment in the job's spec.
        - ``engine``: the sampler of the model's turns.
        - ``scorer``: runs the actions of the environment.
        - ``context``: maximum length of a prompt and its completion together, in tokens.
        - ``together``: whether turns are sampled only when every open rollout waits for a turn, so that
          batches do not depend on timing.
        """
        self._settings, self._dialogue = settings, dialogue
        self._engine, self._scorer, self._context = engine, scorer, context
        self._pace = TurnPace(settings.concurrency, min(engine.batches, settings.concurrency), together)
        self._batch_seconds = FIRST_BATCH_SECONDS
        self._tools: list[dict[str, Any]] | None = None
        self._replies = self._is_agent = False

    def generate(
        self, prompts: Sequence[Prompt], requests: Sequence[Request], should_stop: ShouldStop
    ) -> list[Generated]:
        """Play a rollout for each request. Return the sampled turns and the record (episode) of each rollout.

        The results are in the order of the requests.
        ``requests``: all requests of the first prompt, then all requests of the second prompt, and so on.

        Raises:
            ConfigurationError: the environment's code cannot be used, or the chat template cannot continue a
                conversation.
            Preempted: ``should_stop`` returns True.

        The errors of the engine and of the grader container are raised too.
        """
        if self._tools is None:
            self._describe(should_stop)
        count = len(requests) // max(1, len(prompts))
        done: dict[int, Generated] = {}
        failed = threading.Event()

        def stop() -> bool:
            return failed.is_set() or should_stop()

        with (
            self._endpoint(stop) as gateway,
            self._scorer.acting(stop) as acting,
            ThreadPoolExecutor(self._pace.batches, "turns") as threads,
        ):

            def begin(index: int) -> Begin:
                prompt, request = prompts[index // count], requests[index]
                return lambda _: self._played(index, self._begun(prompt, request), gateway, done)

            def act(slot: int, what: dict[str, Any]) -> Future[Graded]:
                seconds = self._rollout_seconds if what["do"] == "rollout" else None
                return acting.begin(Act(slot, what, seconds))

            players = Players(
                self._pace,
                lambda turns: threads.submit(self._engine.generate, turns, stop),
                act,
                should_stop,
                self._batch_seconds,
                lambda: gateway.failure if gateway is not None else None,
            )
            try:
                players.play([begin(index) for index in range(len(requests))])
            except BaseException:
                failed.set()  # ends sampling and acting: the end of ``with`` waits for both
                raise
            self._batch_seconds = players.batch_seconds
        return [done[index] for index in range(len(requests))]

    def _describe(self, should_stop: ShouldStop) -> None:
        said = self._scorer.act(Act(0, {"do": "describe"}), should_stop)
        if said.value is None:
            raise ConfigurationError(f"spec.environment.python: {said.outcome}")
        self._tools, self._replies = list(said.value["tools"]), bool(said.value["replies"])
        self._is_agent = bool(said.value["agent"])

    @property
    def _rollout_seconds(self) -> float:
        """Time limit in seconds of an agent's whole rollout: the spec's ``maxSeconds`` + ``timeoutSeconds``.

        After ``maxSeconds`` the agent gets no more turns of the model, but may still end its work.
        """
        return self._settings.max_seconds + self._settings.timeout_seconds

    @contextmanager
    def _endpoint(self, stop: ShouldStop) -> Iterator[Gateway | None]:
        """In the ``with`` block, serve an HTTP endpoint at which agents call the model. Yield the endpoint.

        Yield None if the environment is not an agent. ``stop``: returns whether to end sampling.
        """
        if not self._is_agent:
            yield None
            return
        # The turns of agents come at any time, so only batches of one request do not depend on timing.
        batches, largest = (1, 1) if self._pace.together else (self._pace.batches, None)
        sampler = BatchSampler(lambda turns: self._engine.generate(turns, stop), batches, largest)
        try:
            with Gateway(None, sampler, self._dialogue.decode) as gateway:
                yield gateway
        finally:
            sampler.close()

    def _played(
        self, index: int, one: _Playing, gateway: Gateway | None, done: dict[int, Generated]
    ) -> Steps:
        """Play a rollout from ``reset`` to its reward, and store the result in ``done[index]``.

        ``gateway``: the HTTP endpoint for agents. None: the environment is not an agent.
        """
        known: float | ValueError | None = None
        try:
            if gateway is None:
                yield from self._turns(one)
            else:
                known = yield from self._agent(one, gateway, str(index))
        except ValueError as error:
            known = error
        if gateway is not None and gateway.failure is not None:
            raise gateway.failure
        if known is not None:
            one.reward = known
            # The next rollout in the slot must not see files and processes of this rollout.
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

    def _agent(self, one: _Playing, gateway: Gateway, name: str) -> Generator[Any, Graded, float | None]:
        """Let an agent play a rollout. Return the reward that the agent reported. None: it reported none.

        The agent calls the model at the HTTP endpoint ``gateway``, under ``name``. Raises ValueError if the
        agent reports an error, or never calls the model. Also raises ValueError if the agent's code fails,
        unless a limit ended the rollout before.
        """
        yield from self._reset(one)
        token = gateway.open_rollout(name, one.session)
        act = {"do": "rollout", "apiKey": token, "baseUrl": gateway.base_url(name)}
        failed: ValueError | None = None
        try:
            yield from self._act(one, act)
        except ValueError as error:
            failed = error
        finally:
            closed = gateway.close_rollout(name)
        one.take_over(closed)
        if failed is not None and one.session.limit is None:
            raise failed
        if not one.session.turns:
            raise ValueError(
                "the agent did not call the model at its base_url, so there is nothing to train on"
            )
        if closed.reward is not None and closed.reward.error is not None:
            raise ValueError(f"the agent reported an error: {closed.reward.error:.500}")
        return None if closed.reward is None else closed.reward.value

    def _reset(self, one: _Playing) -> Generator[Any, Graded, dict[str, Any]]:
        row = {**one.prompt.row.fields, "messages": list(one.prompt.row.messages)}
        return (yield from self._act(one, {"do": "reset", "row": row}))

    def _turns(self, one: _Playing) -> Steps:
        """Let model and environment take turns until a limit or the environment ends the rollout.

        Raises ValueError if an action of the environment fails.
        """
        begun = yield from self._reset(one)
        if "text" in begun:
            add_first_text(one.messages, begun["text"])
        one.given = len(one.messages)
        while (turn := self._next(one)) is not None:
            completion = yield turn.request
            try:
                message = one.session.record(turn, completion)
            except MalformedCall as error:
                one.tool_errors += 1
                one.messages.append({"role": "assistant", "content": completion.text})
                role = self._dialogue.failure_role
                one.messages.append({"role": role, "content": failure(str(error))})
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
        """Return the model's next turn in a rollout, or None if a limit ends the rollout.

        Raises ConfigurationError if the chat template cannot continue the conversation.
        """
        try:
            return one.session.chat(one.messages, self._tools or [])
        except LimitReached:
            return None
        except Unextendable as error:
            raise ConfigurationError(f"spec.environment: {error}") from error

    def _call(self, one: _Playing, call: dict[str, Any]) -> Steps:
        """Let the environment run a tool call of the model, and add the result to the rollout's messages."""
        function = call["function"]
        arguments = json.loads(function["arguments"])
        one.tool_calls += 1
        said = yield from self._act(one, {"do": "call", "name": function["name"], "arguments": arguments})
        if "failed" in said:
            one.tool_errors += 1
        one.messages.append(_result(call, failure(said["failed"]) if "failed" in said else said["text"]))

    def _reply(self, one: _Playing) -> Generator[Any, Any, bool]:
        """Let the environment answer a turn of the model that has no tool calls.

        Return False if the environment gives no answer, which ends the rollout.
        """
        if not self._replies:
            return False
        said = yield from self._act(one, {"do": "reply", "text": one.messages[-1]["content"]})
        if "text" in said:
            one.messages.append({"role": "user", "content": said["text"]})
        return "text" in said

    def _act(self, one: _Playing, act: dict[str, Any]) -> Generator[Any, Graded, dict[str, Any]]:
        """Let the environment do the action ``act``, such as a tool call. Return the result of the action.

        Raises ValueError if the action fails, or if its result has a wrong form.
        """
        began = time.monotonic()
        reply = yield act
        one.waiting_seconds += time.monotonic() - began
        one.printed = (one.printed + reply.printed)[:MAX_PRINTED_BYTES]
        one.forged += reply.forged
        if isinstance(reply.outcome, ValueError):
            raise reply.outcome
        return _checked(act["do"], reply.value or {})


def _checked(asked: str, said: dict[str, Any]) -> dict[str, Any]:
    """Return the result ``said`` of an environment's action, with lone surrogates in its texts replaced.

    Tokenizers refuse lone surrogates. ``asked``: the name of the action. Raises ValueError if the result has
    a wrong form. This is possible, because users' code can change what the environment's process writes.
    """
    texts = {name: said[name] for name in ("text", "failed") if name in said}
    reward = said.get("reward")
    fits = all(isinstance(text, str) for text in texts.values())
    fits = fits and (asked != "call" or bool(texts))
    fits = fits and (asked != "reward" or (isinstance(reward, int | float) and abs(reward) < 1e300))
    if not fits:
        raise ValueError(f"the environment's process answered the action {asked} in a wrong form")
    return said | {name: text.encode(errors="replace").decode() for name, text in texts.items()}


def _result(call: dict[str, Any], content: str) -> Message:
    name = call["function"]["name"]
    return {"role": "tool", "content": content, "tool_call_id": call["id"], "name": name}
