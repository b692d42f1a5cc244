"""kopf's part: watches, authentication and probes. The handlers only say which job to look at.

``on.event`` is used on purpose. Handlers of other kinds write annotations or finalizers onto users'
objects, and a finalizer hangs every deletion while the operator is away.
"""

from collections.abc import Mapping
from typing import Any

import kopf

from rft_api import GROUP, KIND, PLURAL, VERSION
from rft_operator.cluster import Cluster
from rft_operator.objects.names import LABEL_JOB_NAME, SELECTOR, controller
from rft_operator.operator import Operator

# A watch that dies silently is replaced after this long; events in between are not lost.
WATCH_SECONDS = 240
_WATCHED = (("batch", "v1", "jobs"), ("", "v1", "pods"), ("", "v1", "configmaps"))


def registry(operator: Operator, cluster: Cluster) -> kopf.OperatorRegistry:
    """Return the handlers, bound to ``operator``."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    def login(**_: Any) -> kopf.ConnectionInfo:
        # The same credentials as the rest: kopf's own way needs a cluster with DNS.
        return kopf.ConnectionInfo(**cluster.login())

    @kopf.on.startup(registry=handlers)
    async def startup(**_: Any) -> None:
        await operator.start()

    @kopf.on.cleanup(registry=handlers)
    async def cleanup(**_: Any) -> None:
        await operator.stop()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)
    async def job_event(type: str | None, body: Mapping[str, Any], **_: Any) -> None:
        metadata = body["metadata"]
        key = (metadata["namespace"], metadata["name"])
        operator.job_changed(key, metadata.get("resourceVersion", ""), gone=type == "DELETED")

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
            operator.child_changed((metadata["namespace"], name))

    return handlers


def kopf_settings() -> kopf.OperatorSettings:
    """Return kopf's settings: it watches, and writes nothing."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    # What is watched is known, so no rights on namespaces and CRDs are needed.
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.watching.server_timeout = WATCH_SECONDS  # whole seconds: the API server takes no others
    settings.watching.client_timeout = WATCH_SECONDS + 30.0
    settings.watching.connect_timeout = 10.0
    for group, version, plural in _WATCHED:
        settings.watching.label_selectors[group, version, plural] = SELECTOR
    return settings
