"""Runs the graders http and model, which send requests to a server. Several requests run concurrently."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from rft_api.graders import Grader
from rft_graders.calls import Call, Remote
from rft_graders.client import Graded, GradeRequest, Outcome, ShouldStop
from rft_graders.judge import Judge
from rft_graders.post import Target, post
from rft_graders.protocol import MAX_ERROR_CHARACTERS
from rft_graders.service import Service
from rft_graders.template import TemplateProblem
from rft_graders.tokens import ReadToken, hidden, token_reader
from rft_run.errors import ConfigurationError, Preempted

CONCURRENCY = 8
"""Maximum number of concurrent requests of each grader."""

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class _Grader:
    remote: Remote
    read_token: ReadToken
    timeout: float


class RemoteBackend:
    """Runs the graders of kind http and model: sends their requests to servers. They need no process of their
    own, and keep no connection open between two calls of ``exchange``.
    """

    def __init__(self, graders: Sequence[Grader]) -> None:
        """Check URLs, prompt templates and tokens of the graders. Raises ConfigurationError if one is not
        valid.
        """
        self._graders = {
            grader.name: _Grader(_remote(grader), token_reader(grader), grader.timeout_seconds)
            for grader in graders
        }

    def ready(self, should_stop: ShouldStop) -> dict[str, str | None]:
        """Return the value None, which means no error, for each grader, by its name.

        No server is called here. Only the first request shows whether a grader's server answers.
        """
        del should_stop
        return dict.fromkeys(self._graders)

    def exchange(self, requests: Sequence[GradeRequest], should_stop: ShouldStop) -> list[Graded]:
        """Send all requests to the graders' servers. Return their scores or errors, in the same order.

        Raises Preempted if ``should_stop`` returns True.
        """
        return [Graded(outcome) for outcome in asyncio.run(self._exchange(requests, should_stop))]

    def close(self) -> None:
        """Do nothing: no connection is open between two calls of ``exchange``."""

    async def _exchange(self, requests: Sequence[GradeRequest], should_stop: ShouldStop) -> list[Outcome]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=CONCURRENCY)
        async with httpx.AsyncClient(timeout=httpx.Timeout(None), limits=limits) as client:
            work = asyncio.create_task(self._all(client, requests))
            while not (await asyncio.wait({work}, timeout=_POLL_SECONDS))[0]:
                if should_stop():
                    work.cancel()
                    await asyncio.gather(work, return_exceptions=True)
                    raise Preempted("asked to stop while graders were running")
            return work.result()

    async def _all(self, client: httpx.AsyncClient, requests: Sequence[GradeRequest]) -> list[Outcome]:
        """Send all requests, to the servers of all graders concurrently. Return each score or error, in the
        order of the requests.
        """
        names = sorted({request.grader for request in requests})
        own = {name: [i for i, request in enumerate(requests) if request.grader == name] for name in names}
        found = await asyncio.gather(
            *(_grade(client, self._graders[name], [requests[i] for i in own[name]]) for name in names)
        )
        outcomes: dict[int, Outcome] = {}
        for name, answers in zip(names, found, strict=True):
            outcomes.update(zip(own[name], answers, strict=True))
        return [outcomes[i] for i in range(len(requests))]


async def _grade(
    client: httpx.AsyncClient, grader: _Grader, requests: Sequence[GradeRequest]
) -> list[Outcome]:
    """Send requests to the server of one grader. Return the scores or errors in the order of the requests."""
    try:
        token = grader.read_token()
    except ConfigurationError as error:  # the token existed at the start
        return [ValueError(str(error))] * len(requests)
    target = Target(grader.remote.url, token, grader.timeout)
    limit = asyncio.Semaphore(CONCURRENCY)

    async def limited(call: Call) -> list[Outcome]:
        async with limit:
            return await _call(client, grader.remote, target, call)

    calls = list(grader.remote.calls(requests))
    answers = await asyncio.gather(*map(limited, calls))
    outcomes: dict[int, Outcome] = {}
    for call, answer in zip(calls, answers, strict=True):
        outcomes.update(zip(call.indices, answer, strict=True))
    return [_presentable(outcomes[i], token) for i in range(len(requests))]


async def _call(client: httpx.AsyncClient, remote: Remote, target: Target, call: Call) -> list[Outcome]:
    """Make one HTTP call, which asks for one or more scores. Return the score or the error for each of them,
    in their order.

    If the HTTP call fails, its error is returned for each of the scores.
    """
    try:
        if isinstance(call.body, ValueError):
            raise call.body
        return remote.outcomes(await post(client, target, call.body), len(call.indices))
    except ValueError as error:
        return [error] * len(call.indices)


def _presentable(outcome: Outcome, token: str | None) -> Outcome:
    """Make the result of a request safe to show. Return a score unchanged. Return an error with a shortened
    message, in which the bearer token ``token`` is replaced.
    """
    if isinstance(outcome, ValueError):
        return ValueError(hidden(str(outcome), token)[:MAX_ERROR_CHARACTERS])
    return outcome


def _remote(grader: Grader) -> Remote:
    """Return the object that makes the HTTP calls for a grader of kind http or model.

    Raises ConfigurationError if the URL or the prompt template is not valid.
    """
    kind = grader.http or grader.model
    assert kind is not None
    field = "http" if grader.http is not None else "model"
    try:
        if not httpx.URL(kind.url).host:
            raise httpx.InvalidURL("no host")
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"grader {grader.name}: {field}.url is not a valid URL: {error}") from error
    try:
        return Service(grader) if grader.http is not None else Judge(grader)
    except TemplateProblem as error:
        raise ConfigurationError(f"grader {grader.name}: model.prompt: {error}") from error
