"""kopf's part: watches and authentication. The handlers only say which job to look at.

``on.event`` is used on purpose. Handlers of other kinds write annotations or finalizers onto users'
objects, and a finalizer hangs every deletion while the operator is away.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import kopf

from rft_api import GROUP, KIND, PLURAL, VERSION
from rft_operator.cluster import Cluster
from rft_operator.health import Signs, tracing
from rft_operator.objects.names import LABEL_JOB_NAME, SELECTOR, controller
from rft_operator.operator import Operator

_JOBS = (GROUP, VERSION, PLURAL)
_CHILDREN = (("batch", "v1", "jobs"), ("", "v1", "pods"), ("", "v1", "configmaps"))


def registry(operator: Operator, cluster: Cluster, signs: Signs) -> kopf.OperatorRegistry:
    """Return the handlers, bound to ``operator``; the watches tell ``signs`` that they live."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.AiohttpSession:
        # The same credentials as the rest: kopf's own way needs a cluster with DNS.
        info = kopf.ConnectionInfo(**cluster.login())
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            headers=info.as_http_headers(),
            trace_configs=[tracing(signs)],
        )
        return kopf.AiohttpSession(server=info.server, aiohttp_session=session)

    @kopf.on.startup(registry=handlers)
    async def startup(**_: Any) -> None:
        await operator.start()

    @kopf.on.cleanup(registry=handlers)
    async def cleanup(**_: Any) -> None:
        await operator.stop()

    @kopf.on.event(*_JOBS, registry=handlers)
    async def job_event(type: str | None, body: Mapping[str, Any], **_: Any) -> None:
        metadata = body["metadata"]
        key = (metadata["namespace"], metadata["name"])
        operator.job_changed(key, dict(body), gone=type == "DELETED")

    @kopf.on.event("batch", "v1", "jobs", registry=handlers)
    @kopf.on.event("", "v1", "configmaps", registry=handlers)
    async def child_event(body: Mapping[str, Any], **_: Any) -> None:
        reference = controller(dict(body))
        if reference is not None and reference.get("kind") == KIND:
            operator.child_changed((body["metadata"]["namespace"], reference["name"]))

    @kopf.on.event("", "v1", "pods", registry=handlers)
    async def pod_event(type: str | None, body: Mapping[str, Any], **_: Any) -> None:
        metadata = body["metadata"]
        ended = (body.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if type == "DELETED" or ended:
            operator.pod_ended(metadata["uid"])
        name = (metadata.get("labels") or {}).get(LABEL_JOB_NAME)
        if name:
            operator.child_changed((metadata["namespace"], name), metadata["resourceVersion"])

    return handlers


def watched_paths(namespaces: Sequence[str]) -> list[str]:
    """Return the URL path of every watch; without ``namespaces`` they serve all."""
    places = [f"namespaces/{namespace}/" for namespace in namespaces] or [""]
    apis = (
        (f"/apis/{group}/{version}" if group else f"/api/{version}", plural)
        for group, version, plural in (_JOBS, *_CHILDREN)
    )
    return [f"{api}/{place}{plural}" for api, plural in apis for place in places]


class NoDifferences(kopf.DiffBaseStorage):
    """Stands for what an object was, which only handlers of changes ask for, and there are none.

    kopf would copy every object that it is told of to find out, on the loop that answers reports.
    """

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Return that there is nothing to compare."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        """Return that there was nothing to compare."""
        return None

    def store(self, **_: Any) -> None:
        """Keep nothing."""


def kopf_settings(watch_seconds: int) -> kopf.OperatorSettings:
    """Return kopf's settings: it watches, connecting anew every ``watch_seconds``, and writes nothing."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = NoDifferences()
    # What is watched is known, so no rights on namespaces and CRDs are needed.
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.watching.server_timeout = watch_seconds  # whole seconds: the API server takes no others
    settings.watching.client_timeout = watch_seconds + 30.0
    settings.watching.connect_timeout = 10.0
    for group, version, plural in _CHILDREN:
        settings.watching.label_selectors[group, version, plural] = SELECTOR
    return settings
