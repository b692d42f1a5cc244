"""Runs the two servers of the admission webhook. One answers admission reviews over TLS. The other answers
the kubelet's probes over plain HTTP.
"""

import asyncio
import json
import logging
import time
from contextlib import suppress
from typing import Any

from aiohttp import web

from rft_operator import tls
from rft_operator.cluster import ClusterError
from rft_operator.listener import BoundedListener, Limits
from rft_operator.listening import peer_of
from rft_operator.webhook.certificates import Source
from rft_operator.webhook.review import Malformed, review
from rft_operator.webhook.settings import WebhookSettings

VALIDATE_PATH = "/validate"
MAX_REVIEW_BYTES = 3 * 2**20
"""Maximum size in bytes of the body of an AdmissionReview. An object in Kubernetes has at most about 1.5 MB,
and the review of an update has two objects.
"""
BODY_SECONDS = 5.0
"""Time limit, in seconds, for the arrival of a request's body. The API server waits equally long for the
webhook's answer."""
RETRY_SECONDS = 2.0
LIMITS = Limits(connections=128)
"""Limits for the connections to each server of the webhook. Few connections are enough, because only API
servers ask for reviews, and they reuse connections."""
_log = logging.getLogger(__name__)


def application() -> web.Application:
    """Return the aiohttp application that answers AdmissionReviews of RFTJobs."""
    made = web.Application(client_max_size=MAX_REVIEW_BYTES)
    made.router.add_post(VALIDATE_PATH, _respond)
    return made


async def _respond(request: web.Request) -> web.Response:
    started = time.perf_counter()
    try:
        document = _parse(await _body(request))
        answer = review(document)
    except web.HTTPRequestEntityTooLarge:
        return _error(request, 413, f"the review is too large: at most {MAX_REVIEW_BYTES} bytes")
    except TimeoutError:
        return _error(request, 408, "the body of the review did not arrive in time")
    except Malformed as error:
        return _error(request, 400, str(error))
    fields = {**_summary(document["request"], answer["response"])}
    fields["milliseconds"] = round((time.perf_counter() - started) * 1000, 2)
    _log.info("reviewed", extra={"fields": fields})
    return web.json_response(answer)


async def _body(request: web.Request) -> bytes:
    return await asyncio.wait_for(request.read(), BODY_SECONDS)


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed("the body is not JSON") from error


def _error(request: web.Request, status: int, message: str) -> web.Response:
    _log.warning(message, extra={"fields": {"remote": peer_of(request.remote or ""), "status": status}})
    return web.json_response({"error": message}, status=status)


def _summary(request: dict[str, Any], response: dict[str, Any]) -> dict[str, Any]:
    """Return the fields for the log record of an answered AdmissionReview: the RFTJob, whether it was
    allowed, and the fields of the spec that have problems.

    ``request`` and ``response`` are the fields with these names in the two AdmissionReviews.
    """
    causes = response["status"]["details"]["causes"] if "status" in response else []
    return {
        "uid": request["uid"],
        "operation": request["operation"],
        "namespace": request.get("namespace"),
        "name": request["object"]["metadata"].get("name"),
        "allowed": response["allowed"],
        "problems": [cause["field"] for cause in causes],
        "warnings": len(response.get("warnings", ())),
    }


class Readiness:
    """The readiness of the webhook, for the kubelet's probes. ``reason`` says why the webhook is not ready,
    and is empty if it is ready.
    """

    def __init__(self) -> None:
        self.reason = "the webhook has no certificate yet"

    def application(self) -> web.Application:
        """Return the aiohttp application that answers the probes of the kubelet, at ``/healthz`` and
        ``/readyz``.
        """
        made = web.Application()
        made.router.add_get("/healthz", self._alive)
        made.router.add_get("/readyz", self._ready)
        return made

    async def _alive(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _ready(self, _: web.Request) -> web.Response:
        return web.Response(text=self.reason or "ok", status=503 if self.reason else 200)


async def run(settings: WebhookSettings, source: Source, stop: asyncio.Event) -> None:
    """Answer probes and admission reviews until ``stop`` is set. ``source`` is a function that returns the
    current certificate and its key.

    Reviews are answered only after the first call of ``source`` that succeeds. Until then, the readiness
    probe fails.
    """
    certificate = _Certificate(source)
    readiness = Readiness()
    probes, reviews = BoundedListener(readiness.application(), LIMITS), BoundedListener(application(), LIMITS)
    try:
        await probes.start(settings.bind, settings.health_port, setting="RFT_HEALTH_PORT")
        while not await certificate.refresh():
            if await _is_set_within(stop, RETRY_SECONDS):
                return
        await reviews.start(settings.bind, settings.port, certificate.context, "RFT_WEBHOOK_PORT")
        readiness.reason = ""
        _log.info("serving", extra={"fields": {"port": settings.port}})
        while not await _is_set_within(stop, settings.check_seconds):
            await certificate.refresh()
        readiness.reason = "the webhook stops"
        await asyncio.sleep(settings.drain_seconds)
    finally:
        await reviews.close()
        await probes.close()


class _Certificate:
    """The serving certificate of the webhook. It is loaded into ``context``, an ``ssl.SSLContext`` that the
    listener uses, and is loaded again when it changes.
    """

    def __init__(self, source: Source) -> None:
        self.context = tls.bare_context()
        self._source = source
        self._loaded: tls.KeyPair | None = None

    async def refresh(self) -> bool:
        """Load the current certificate into ``context`` if it has changed. Return False if it cannot be read
        or loaded, else True.
        """
        try:
            pair = await asyncio.to_thread(self._source)
            if pair != self._loaded:
                # While the files are being replaced, the key may not match the certificate. So both are first
                # loaded into a new context. If this fails, the context in use is not changed.
                tls.server_context(pair)
                tls.load_into(self.context, pair)
                self._loaded = pair
                _log.info("certificate loaded")
        except (ClusterError, OSError, ValueError) as error:
            _log.warning("the certificate could not be checked: %s", error)
            return False
        return True


async def _is_set_within(stop: asyncio.Event, seconds: float) -> bool:
    """Wait until ``stop`` is set, at most for ``seconds``. Return whether ``stop`` is set now."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
    return stop.is_set()
