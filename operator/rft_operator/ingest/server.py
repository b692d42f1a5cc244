"""The ingest: a web application that receives the progress reports of trainers as POST requests. Each request
has a service account token that is bound to the trainer's pod.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from contextlib import suppress

from aiohttp import web
from pydantic import ValidationError

from rft_operator import metrics
from rft_operator.cluster import Cluster, ClusterError
from rft_operator.ingest import identity
from rft_operator.ingest.cache import AnswerCache, Chains
from rft_operator.ingest.identity import Caller, Refused
from rft_operator.ingest.limits import Complaints, ReviewGate, SourceLimiter
from rft_operator.ingest.reports import Reports
from rft_operator.listening import peer_of
from rft_operator.queue import Key
from rft_run import wire
from rft_run.report import MAX_REPORT_BYTES, REPORT_PATH, TOKEN_AUDIENCE, ProgressReport, ReportAnswer

BODY_SECONDS = 15.0
_log = logging.getLogger(__name__)


class Ingest:
    """Receives the trainers' reports: verifies the sender of each report, and keeps the newest report of each
    RFTJob. All calls must come from one event loop.
    """

    def __init__(
        self,
        cluster: Cluster,
        reports: Reports,
        executor: Executor,
        accepted: Callable[[Key], None],
        clock: Callable[[], float] = time.monotonic,
        namespaces: Collection[str] = (),
        chains: Chains | None = None,
    ) -> None:
        """Make an ingest that keeps the reports in ``reports``.

        - ``executor``: tokens are reviewed in its threads.
        - ``accepted``: called for each new report with the key (namespace and name) of its RFTJob.
        - ``namespaces``: only reports from these namespaces are accepted. If it is empty, all are.
        - ``chains``: a cache that maps pods to RFTJobs. The controller adds entries too, because it reads the
          pods and the RFTJobs anyway.
        """
        self._namespaces = namespaces
        self._cluster = cluster
        self._reports = reports
        self._executor = executor
        self._accepted = accepted
        self._cache = AnswerCache(clock)
        self._chains = chains or Chains(clock)
        self._sources = SourceLimiter(clock)
        self._complaints = Complaints(clock)
        self._gate, self._known_gate = ReviewGate(), ReviewGate()
        self._renewals: set[asyncio.Task[None]] = set()

    def application(self) -> web.Application:
        """Return the aiohttp application that receives reports, and that answers probes at ``/healthz``."""
        application = web.Application(client_max_size=MAX_REPORT_BYTES)
        application.router.add_post(REPORT_PATH, self._respond)
        application.router.add_get("/healthz", _healthy)
        return application

    def forget_pod(self, pod_uid: str) -> None:
        """Drop the cached data about a deleted pod: the reviews of its tokens, and its RFTJob."""
        self._cache.forget_pod(pod_uid)
        self._chains.forget_pod(pod_uid)

    async def _respond(self, request: web.Request) -> web.Response:
        try:
            response = web.json_response((await self._take(request)).dump())
        except Refused as refusal:
            self._complain(peer_of(request.remote or ""), refusal)
            response = web.json_response({"error": str(refusal)}, status=refusal.status)
        metrics.REPORTS.labels(response.status).inc()
        return response

    def _complain(self, source: str, refusal: Refused) -> None:
        """Log that a report was refused. ``source`` is the address of the sender. The token is never logged.

        If an equal refusal of this sender was logged just before, the new one is only counted.
        """
        left_out = self._complaints.count(source, f"{refusal.status} {refusal}")
        if left_out is not None:
            more = f" ({left_out} refusals before were not logged)" if left_out else ""
            _log.info("the report from %s was refused: %s %s%s", source, refusal.status, refusal, more)

    async def _take(self, request: web.Request) -> ReportAnswer:
        source, token = peer_of(request.remote or ""), _token(request)
        # Pods may share an address. So a pod whose token was accepted before has a limit of its own.
        self._sources.check((token and self._cache.bearer(token)) or source)
        if not token:
            raise Refused(401, "the request needs a bearer token")
        if (request.content_length or 0) > MAX_REPORT_BYTES:
            raise Refused(413, f"the report is too large: at most {MAX_REPORT_BYTES} bytes")
        caller = await self._identify(token)
        report = _parse(await _body(request))
        if self._reports.accept(caller, report):
            self._accepted((caller.namespace, caller.job_name))
        return self._reports.answer(caller.job_uid)

    async def _identify(self, token: str) -> Caller:
        answer = self._cache.get(token)
        if answer is None:
            answer = await self._review(token)
        elif self._cache.renews(token):
            renewal = asyncio.create_task(self._renew(token))
            self._renewals.add(renewal)
            renewal.add_done_callback(self._renewals.discard)
        if isinstance(answer, Refused):
            # A copy: raising the cached exception again would append to its traceback each time.
            raise Refused(answer.status, str(answer))
        return answer

    async def _renew(self, token: str) -> None:
        """Review a token again, and cache the result. Runs in the background, before the cached review
        expires.
        """
        with suppress(Refused):  # the token could not be reviewed: the cached review stays valid
            await self._review(token)

    async def _review(self, token: str) -> Caller | Refused:
        # Senders whose token was accepted before do not queue behind unknown ones.
        gate = self._known_gate if self._cache.bearer(token) else self._gate
        async with gate.enter():
            metrics.REVIEWS.inc()
            answer = await asyncio.get_running_loop().run_in_executor(self._executor, self._look_up, token)
        self._cache.put(token, answer)
        return answer

    def _look_up(self, token: str) -> Caller | Refused:
        """Let the API server review a token, and follow the owner references of its pod to the RFTJob. Return
        the sender, or (as a value) the exception with which the token is refused.

        Raises Refused with the HTTP status 503 if a request to the API server fails. Runs in a thread.
        """
        try:
            claimed = identity.claims(self._cluster.review_token(token, TOKEN_AUDIENCE), TOKEN_AUDIENCE)
            identity.served(claimed, self._namespaces)
            if (known := self._chains.get(claimed)) is not None:
                return known
            pod = self._cluster.pod(claimed.namespace, claimed.pod_name)
            child_reference = identity.live_pod(claimed, pod)
            child = self._cluster.child(claimed.namespace, child_reference["name"])
            job_reference = identity.live_child(child_reference, child)
            job = identity.live_job(
                job_reference, self._cluster.job(claimed.namespace, job_reference["name"])
            )
        except Refused as refusal:
            return refusal
        except ClusterError as error:
            # It is not known whether the token is valid, so nothing is cached.
            _log.warning("a token could not be reviewed: %s", error)
            raise Refused(503, "the API server does not answer; try again") from error
        if pod is None:
            raise AssertionError("live_pod must refuse a pod that does not exist")
        caller = identity.caller(claimed, pod, job)
        self._chains.put(caller)
        return caller


async def _healthy(_: web.Request) -> web.Response:
    return web.Response(text="ok")


def _token(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def _body(request: web.Request) -> bytes:
    try:
        return await asyncio.wait_for(request.read(), BODY_SECONDS)
    except web.HTTPRequestEntityTooLarge as error:
        raise Refused(413, f"the report is too large: at most {MAX_REPORT_BYTES} bytes") from error
    except TimeoutError as error:
        raise Refused(408, "the request's body did not arrive in time; send the report again") from error


def _parse(body: bytes) -> ProgressReport:
    try:
        return wire.read(ProgressReport, body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise Refused(400, f"the body is not a valid report: {place}: {first['msg']}") from error
