"""Runs http and model graders, with many concurrent requests up to a limit."""

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
"""Most concurrent requests per grader."""

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class _Grader:
    remote: Remote
    read_token: ReadToken
    timeout: float


class RemoteBackend:
    """Graders behind an address. It has no process, and no connections stay open between exchanges."""

    def __init__(self, graders: Sequence[Grader]) -> None:
        """Check addresses, templates and tokens. Raises ConfigurationError."""
        self._graders = {
            grader.name: _Grader(_remote(grader), token_reader(grader), grader.timeout_seconds)
            for grader in graders
        }

    def ready(self, should_stop: ShouldStop) -> dict[str, str | None]:
        """Return None for every grader: whether a service answers is found out at the first score."""
        del should_stop
        return dict.fromkeys(self._graders)

    def exchange(self, requests: Sequence[GradeRequest], should_stop: ShouldStop) -> list[Graded]:
        """Return one outcome per request, in order. Raises Preempted."""
        return [Graded(outcome) for outcome in asyncio.run(self._exchange(requests, should_stop))]

    def close(self) -> None:
        """Nothing to close."""

    async def _exchange(self, requests: Sequence[GradeRequest], should_stop: ShouldStop) -> list[Outcome]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=CONCURRENCY)
        async with httpx.AsyncClient(timeout=httpx.Timeout(None), limits=limits) as client:
            work = asyncio.create_task(self._all(client, requests))
            while not (await asyncio.wait({work}, timeout=_POLL_SECONDS))[0]:
                if should_stop():
                    work.cancel()
                    await asyncio.gather(work, return_exceptions=True)
                    raise Preempted("asked to stop while grading")
            return work.result()

    async def _all(self, client: httpx.AsyncClient, requests: Sequence[GradeRequest]) -> list[Outcome]:
        """Call all graders concurrently and return the outcomes in the order of the requests."""
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
    """Return the outcomes of one grader's requests."""
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
    """Return the outcomes of a call's requests. If the call fails, its error is the outcome of each."""
    try:
        if isinstance(call.body, ValueError):
            raise call.body
        return remote.outcomes(await post(client, target, call.body), len(call.indices))
    except ValueError as error:
        return [error] * len(call.indices)


def _presentable(outcome: Outcome, token: str | None) -> Outcome:
    """Return the outcome; an error's message is shortened and the token in it is hidden."""
    if isinstance(outcome, ValueError):
        return ValueError(hidden(str(outcome), token)[:MAX_ERROR_CHARACTERS])
    return outcome


def _remote(grader: Grader) -> Remote:
    """Return the protocol of the grader's kind. Raises ConfigurationError for a bad address or template."""
    kind = grader.http or grader.model
    assert kind is not None
    field = "http" if grader.http is not None else "model"
    try:
        if not httpx.URL(kind.url).host:
            raise httpx.InvalidURL("no host")
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"grader {grader.name}: {field}.url is no address: {error}") from error
    try:
        return Service(grader) if grader.http is not None else Judge(grader)
    except TemplateProblem as error:
        raise ConfigurationError(f"grader {grader.name}: model.prompt: {error}") from error
