"""The HTTP endpoint at which agents call the policy during rollouts. It has OpenAI's API.

Each rollout has its own path and access token.

GET  /rollouts/<id>/v1/models
POST /rollouts/<id>/v1/chat/completions   also with "stream": true
POST /rollouts/<id>/v1/completions        the prompt is a text or a list of token ids
POST /rollouts/<id>/reward                {"value": 0.5, "metrics": {…}} or {"error": "why"}, once

The modules ``session`` and ``answers`` decide how a request is answered. Only the server's thread changes a
rollout.
"""

import asyncio
import hmac
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from rft_run.errors import ConfigurationError, TrainerError
from rft_trainer.rollout.gateway import answers
from rft_trainer.rollout.gateway.answers import AnswerOptions, BadRequest, ReportedReward
from rft_trainer.rollout.gateway.dialogue import MalformedCall, Unextendable
from rft_trainer.rollout.gateway.sampler import BatchSampler
from rft_trainer.rollout.gateway.session import LimitReached, Recorded, Session, Turn

MAX_BODY_BYTES = 8 * 1024 * 1024
_LOOPBACK = "127.0.0.1"
_START_SECONDS = 30.0

Decode = Callable[[list[int]], str]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Closed(Exception):
    """Error: a rollout was closed while a request was answered. The request must not change the rollout."""


class _RunEnds(Exception):
    """Error that ends the run: sampling failed, or the chat template cannot continue a conversation."""


@dataclass
class OpenRollout:
    """A rollout at the HTTP endpoint, which an agent is playing.

    - ``token``: the access token that the agent sends with each request.
    - ``reward``: the reward or the error that the agent has reported. None: nothing was reported yet.
    - ``closed``: whether the rollout has ended. Then requests must not change it any more.
    """

    name: str
    session: Session
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    reward: ReportedReward | None = None
    refused: int = 0
    """How many requests for this rollout were refused, such as those with the token of another rollout."""
    sampling_seconds: float = 0.0
    """Seconds that the agent has waited for turns of the model."""
    closed: bool = False
    turn_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Locked while a turn of this rollout is sampled.

    So its turns are sampled one after the other, and seeds do not depend on timing.
    """


class Gateway:
    """HTTP server at which agents call the policy, on a Unix socket or on loopback. It is a context manager.

    The server runs in a thread of its own. Any other thread may call ``open_rollout`` and ``close_rollout``.
    """

    def __init__(self, socket: Path | None, sampler: BatchSampler, decode: Decode) -> None:
        """Prepare the server. ``__enter__`` starts it.

        - ``socket``: path of the Unix socket. None: the server listens on a free port of 127.0.0.1.
        - ``sampler``: samples the turns of the model.
        - ``decode``: returns the text of token ids.
        """
        self.counts: Counter[str] = Counter()
        """Number of refused requests, by reason.

        - ``unauthorized``: wrong access token
        - ``badRequests``: the request cannot be answered
        - ``ended``: the rollout has reached a limit
        - ``rewards``: the rollout's reward was already reported
        """
        self.failure: Exception | None = None
        """The first error of the engine or of the chat template. It ends the run. None: no error."""
        self._port = 0
        self._socket, self._sampler, self._decode = socket, sampler, decode
        self._rollouts: dict[str, OpenRollout] = {}
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._cannot_listen: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="gateway", daemon=True)

    def __enter__(self) -> Self:
        """Start the server. Raises TrainerError if it cannot listen on its socket."""
        self._thread.start()
        if not self._started.wait(_START_SECONDS) or self._cannot_listen is not None:
            where = self._socket or _LOOPBACK
            raise TrainerError(f"the endpoint of rollouts does not listen on {where}: {self._cannot_listen}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server, and remove its socket."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)

    def base_url(self, name: str) -> str:
        """Return the base URL of the rollout ``name`` for a client of OpenAI's API."""
        return f"http://{_LOOPBACK}:{self._port}/rollouts/{name}/v1"

    def open_rollout(self, name: str, session: Session) -> str:
        """Make a rollout reachable by HTTP under ``name``. Return its access token.

        ``session``: the record of the rollout. Raises ValueError if the name is in use.
        """
        if name in self._rollouts:
            raise ValueError(f"the rollout {name} is open already")
        rollout = self._rollouts[name] = OpenRollout(name, session)
        return rollout.token

    def close_rollout(self, name: str) -> OpenRollout:
        """Make the rollout ``name`` unreachable by HTTP, and return it. Its session changes no more."""

        async def close() -> OpenRollout:
            rollout = self._rollouts.pop(name)
            rollout.closed = True
            return rollout

        return asyncio.run_coroutine_threadsafe(close(), self._loop).result()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._run())
        except OSError as error:
            self._cannot_listen = error
            self._started.set()
        finally:
            self._loop.close()

    async def _run(self) -> None:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/rollouts/{name}/v1/models", self._checked(self._models))
        app.router.add_post("/rollouts/{name}/v1/chat/completions", self._checked(self._chat))
        app.router.add_post("/rollouts/{name}/v1/completions", self._checked(self._complete))
        app.router.add_post("/rollouts/{name}/reward", self._checked(self._reward))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            if self._socket is None:
                await web.TCPSite(runner, _LOOPBACK, 0).start()
                self._port = runner.addresses[0][1]
            else:
                await web.UnixSite(runner, str(self._socket)).start()
                self._socket.chmod(0o660)
            self._started.set()
            await self._stop.wait()
        finally:
            await runner.cleanup()

    def _checked(
        self, handle: Callable[[web.Request, OpenRollout], Awaitable[web.StreamResponse]]
    ) -> Handler:
        """Wrap a request handler. Return a handler that also checks the access token and answers errors.

        A request without the rollout's token is refused. Errors of ``handle`` become JSON answers.
        """

        async def checked(request: web.Request) -> web.StreamResponse:
            rollout = self._rollouts.get(request.match_info["name"])
            # Bytes that are not UTF-8 are in the header's text as surrogates.
            header = request.headers.get("Authorization", "").encode(errors="surrogateescape")
            given = header.removeprefix(b"Bearer ")
            # The answer is the same for a rollout that does not exist, so that names cannot be guessed.
            if rollout is None or not hmac.compare_digest(given, rollout.token.encode()):
                self.counts["unauthorized"] += 1
                if rollout is not None:
                    rollout.refused += 1
                return _error(401, "the API key is wrong, or the rollout has ended", "invalid_api_key")
            try:
                return await handle(request, rollout)
            except BadRequest as error:
                self.counts["badRequests"] += 1
                rollout.refused += 1
                return _error(400, str(error), "invalid_request_error", error.param)
            except LimitReached as error:
                self.counts["ended"] += 1
                return _error(403, f"{error.limit}: {error}", "rollout_ended")
            except MalformedCall as error:
                return _error(422, str(error), "malformed_tool_call")
            except _Closed:
                return _error(401, "the rollout has ended", "invalid_api_key")
            except _RunEnds:
                answer = _error(503, "the run ends, so no more turns are sampled", "run_ends")
                answer.headers["x-should-retry"] = "false"  # OpenAI's clients would wait, and try again
                return answer

        return checked

    async def _models(self, _request: web.Request, _rollout: OpenRollout) -> web.StreamResponse:
        return web.json_response(answers.models_answer())

    async def _chat(self, request: web.Request, rollout: OpenRollout) -> web.StreamResponse:
        body = await _body(request)
        asked, messages, tools = answers.asked_of(body), answers.messages_of(body), answers.tools_of(body)
        async with rollout.turn_lock:
            _refuse_closed(rollout)
            try:
                turn = rollout.session.chat(messages, tools)
            except Unextendable as error:
                self._fail(ConfigurationError(f"spec.environment: {error}"))
                raise _RunEnds from error
            except ValueError as error:
                raise BadRequest(str(error), "messages") from error
            recorded, message = await self._sample(rollout, turn, asked)
        about = (f"chatcmpl-{secrets.token_hex(8)}", int(time.time()), recorded, message, asked, self._decode)
        if asked.stream:
            return await _streamed(request, answers.chat_chunks(*about))
        return web.json_response(answers.chat_answer(*about))

    async def _complete(self, request: web.Request, rollout: OpenRollout) -> web.StreamResponse:
        body = await _body(request)
        asked, prompt = answers.asked_of(body), answers.prompt_of(body)
        async with rollout.turn_lock:
            _refuse_closed(rollout)
            try:
                turn = rollout.session.complete(prompt)
            except ValueError as error:
                raise BadRequest(str(error), "prompt") from error
            recorded, _ = await self._sample(rollout, turn, asked)
        about = (f"cmpl-{secrets.token_hex(8)}", int(time.time()), recorded, asked, self._decode)
        if asked.stream:
            return await _streamed(request, answers.completion_chunks(*about))
        return web.json_response(answers.completion_answer(*about))

    async def _sample(
        self, rollout: OpenRollout, turn: Turn, asked: AnswerOptions
    ) -> tuple[Recorded, dict[str, Any]]:
        rollout.session.counts["ignoredParameters"] += len(asked.ignored)
        began = time.monotonic()
        try:
            generated = await asyncio.wrap_future(self._sampler.submit(turn.request))
        except Exception as error:
            self._fail(error)
            raise _RunEnds from error
        finally:
            rollout.sampling_seconds += time.monotonic() - began
        _refuse_closed(rollout)
        message = rollout.session.record(turn, generated)
        return rollout.session.turns[-1], message

    def _fail(self, error: Exception) -> None:
        """Store the first error that ends the run in ``failure``.

        Later errors are not stored, because they are only consequences of the first one.
        """
        if self.failure is None:
            self.failure = error

    async def _reward(self, request: web.Request, rollout: OpenRollout) -> web.StreamResponse:
        reward = answers.reward_of(await _body(request))
        _refuse_closed(rollout)
        if rollout.reward is not None:
            self.counts["rewards"] += 1
            rollout.refused += 1
            return _error(409, "the reward of this rollout was already reported", "reward_exists")
        rollout.reward = reward
        return web.json_response({"ok": True})


def _refuse_closed(rollout: OpenRollout) -> None:
    """Raise _Closed if the rollout was closed.

    A request handler calls this after each ``await``, before it changes the rollout.
    """
    if rollout.closed:
        raise _Closed


async def _body(request: web.Request) -> dict[str, Any]:
    """Read the body of an HTTP request, which must be a JSON object. Raises BadRequest if it is not."""
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadRequest("the body is not a JSON object")
    return body


def _error(status: int, message: str, kind: str, param: str | None = None) -> web.StreamResponse:
    return web.json_response(answers.error_body(message, kind, param), status=status)


async def _streamed(request: web.Request, events: Iterator[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    for event in events:
        await response.write(event)
    await response.write_eof()
    return response
