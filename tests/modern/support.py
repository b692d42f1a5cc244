"""Helpers for tests with the current API server."""

from copy import deepcopy
from typing import Any
from uuid import uuid4

import httpx

from rft_api import GROUP, PLURAL, VERSION
from tests.manifests import manifest
from tests.modern.server import Server

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
RFTJOBS = f"/apis/{GROUP}/{VERSION}/namespaces/default/{PLURAL}"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
START = "2026-11-22T18:00:00Z"

Object = dict[str, Any]


def named(**spec: Any) -> Object:
    """Return a valid RFTJob with a unique name. The keyword arguments are fields of its spec."""
    document = deepcopy(manifest(**spec))
    document["metadata"]["name"] = f"job-{uuid4().hex[:8]}"
    return document


def create(server: Server, document: Object) -> httpx.Response:
    """Create an RFTJob with strict field validation, like kubectl."""
    return server.call("POST", f"{RFTJOBS}?fieldValidation=Strict", document)


def patch(server: Server, name: str, body: Object, subresource: str = "") -> httpx.Response:
    """Send a merge patch."""
    return server.call("PATCH", f"{RFTJOBS}/{name}{subresource}", body, MERGE_PATCH)


def started(server: Server, phase: str = "Running", **spec: Any) -> str:
    """Create an RFTJob, and set its status as if its run had started. Return its name."""
    answer = create(server, named(**spec))
    assert answer.status_code == 201, answer.text
    name = str(answer.json()["metadata"]["name"])
    answer = patch(server, name, {"status": {"startTime": START, "phase": phase}}, "/status")
    assert answer.status_code == 200, answer.text
    return name


def apply(server: Server, document: Object, manager: str) -> httpx.Response:
    """Apply a part of an RFTJob by server-side apply, as the field manager ``manager``."""
    path = f"{RFTJOBS}/{document['metadata']['name']}?fieldManager={manager}"
    return server.call("PATCH", path, document, APPLY_PATCH)
