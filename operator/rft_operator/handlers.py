"""kopf's handlers. They log in to the API server, and add the RFTJob of each watch event to the work queue.

Of kopf's handlers for objects, only ``on.event`` is used. The other kinds write annotations or finalizers
into users' objects. An object with a finalizer could not be deleted while the operator does not run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import kopf

from rft_api import GROUP, PLURAL, VERSION
from rft_operator.cluster import Cluster
from rft_operator.health import Signs
from rft_operator.objects.names import LABEL_JOB_NAME, SELECTOR, controller, is_of_rftjob
from rft_operator.operator import Operator
from rft_operator.watches import Backoff, middleware

LIST_CHUNK = 100
"""Maximum number of objects per page of the list that kopf reads before a watch."""
IDLE_SECONDS = 0.2
"""Seconds for which kopf keeps an object in memory after its last event."""
RELIST_SECONDS = 1.0
"""Seconds that kopf waits before it lists all objects again. It must list them again if the API server
refuses the resource version of a watch as too old."""
_JOBS = (GROUP, VERSION, PLURAL)
_CHILDREN = (("batch", "v1", "jobs"), ("", "v1", "pods"), ("", "v1", "configmaps"))


def registry(operator: Operator, cluster: Cluster, signs: Signs) -> kopf.OperatorRegistry:
    """Return kopf's handlers for ``operator``. They record the answer to each watch in ``signs``."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.AiohttpSession:
        # kopf gets the credentials of ``Cluster``, because kopf's own login in a pod needs the cluster's DNS.
        info = kopf.ConnectionInfo(**cluster.login())
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            headers=info.as_http_headers(),
            middlewares=[middleware(signs)],
        )
        return kopf.AiohttpSession(server=info.server, aiohttp_session=session)

    @kopf.on.startup(registry=handlers, errors=kopf.ErrorsMode.PERMANENT)
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

    def child_event(type: str | None, body: Mapping[str, Any], *, job_or_pod: bool) -> None:
        reference = controller(dict(body))
        if reference is not None and is_of_rftjob(reference):
            metadata = body["metadata"]
            key = (metadata["namespace"], reference["name"])
            operator.child_changed(key, job_or_pod=job_or_pod, version=version_told(type, metadata))

    @kopf.on.event("batch", "v1", "jobs", registry=handlers)
    async def child_job_event(type: str | None, body: Mapping[str, Any], **_: Any) -> None:
        child_event(type, body, job_or_pod=True)

    @kopf.on.event("", "v1", "configmaps", registry=handlers)
    async def config_map_event(type: str | None, body: Mapping[str, Any], **_: Any) -> None:
        child_event(type, body, job_or_pod=False)

    @kopf.on.event("", "v1", "pods", registry=handlers)
    async def pod_event(type: str | None, body: Mapping[str, Any], **_: Any) -> None:
        metadata = body["metadata"]
        ended = (body.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if type == "DELETED" or ended:
            operator.pod_ended(metadata["uid"])
        name = (metadata.get("labels") or {}).get(LABEL_JOB_NAME)
        if name:
            key = (metadata["namespace"], name)
            operator.child_changed(key, metadata["resourceVersion"], job_or_pod=True)

    return handlers


def version_told(event: str | None, metadata: Mapping[str, Any]) -> str:
    """Return the resource version of the child object in a watch event, or "" if the event must be handled.

    The informer cache ignores an event with the version of an object that this process has just created. Two
    kinds of events must always be handled, so their version is not returned:

    - A deletion: the deleted object may still have the version of its creation.
    - An object from a list (``event`` is None): kopf lists all objects at its start, and after a watch has
      failed. Events before the list may have been lost, such as the deletion of another child.
    """
    return str(metadata["resourceVersion"]) if event in ("ADDED", "MODIFIED") else ""


def watched_paths(namespaces: Sequence[str]) -> list[str]:
    """Return the URL path of every watch. If ``namespaces`` is empty, the watches are cluster-wide."""
    places = [f"namespaces/{namespace}/" for namespace in namespaces] or [""]
    apis = (
        (f"/apis/{group}/{version}" if group else f"/api/{version}", plural)
        for group, version, plural in (_JOBS, *_CHILDREN)
    )
    return [f"{api}/{place}{plural}" for api, plural in apis for place in places]


class NoDifferences(kopf.DiffBaseStorage):
    """A storage that stores nothing. It turns off kopf's computation of the differences between two versions
    of an object.

    Only kopf's change handlers need these differences, and the operator has no change handler. To compute
    them, kopf would copy the object of every watch event. This would delay the answers to trainers' reports,
    because both run in one event loop.
    """

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Return an empty essence (kopf's copy of an object), so that kopf has nothing to compare."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        """Return None: no earlier essence (kopf's copy of an object) is stored."""
        return None

    def store(self, **_: Any) -> None:
        """Store nothing. Otherwise kopf would write the essence (its copy of an object) into annotations."""


def kopf_settings(watch_seconds: int) -> kopf.OperatorSettings:
    """Return settings that make kopf post no Events and store no annotations.

    Each watch ends and is renewed after ``watch_seconds``.
    """
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = NoDifferences()
    # kopf does not search for resources to watch, so the operator needs no right to list namespaces and CRDs.
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.watching.server_timeout = watch_seconds  # whole seconds: the API server takes no others
    settings.watching.client_timeout = watch_seconds + 30.0
    settings.watching.connect_timeout = 10.0
    settings.watching.reconnect_backoff = RELIST_SECONDS
    settings.networking.error_backoffs = Backoff()
    # kopf reads lists in pages. With thousands of jobs, a whole list as Python dictionaries would take most
    # of the process's memory.
    settings.watching.chunk_size = LIST_CHUNK
    settings.queueing.idle_timeout = IDLE_SECONDS
    for group, version, plural in _CHILDREN:
        settings.watching.label_selectors[group, version, plural] = SELECTOR
    return settings
