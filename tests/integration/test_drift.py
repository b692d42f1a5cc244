"""An API server stores the objects of the chart and of the examples without a change.

So GitOps tools see no drift. The tests use server-side apply as a dry run. It returns the object that would
be stored, and stores nothing. ``test_crd.py`` tests the same for the CRD.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rft_api.loader import load_file
from tests.integration.account_support import rendered, tool
from tests.integration.operator_support import ROOT, Api
from tests.kubectl import Kubectl, Object
from tests.unit.chart_support import SETS

pytestmark = pytest.mark.cluster

POLICIES = 30
"""Minor version of Kubernetes 1.30, the oldest with all kinds that the chart renders by default."""
FOREIGN = ("cert-manager.io/", "monitoring.coreos.com/")
"""API groups of cert-manager and the Prometheus operator, which the test cluster does not have."""
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))


def lost(ours: Any, theirs: Any, path: str) -> Iterator[str]:
    """Yield a message for each value of ``ours`` that is missing or different in ``theirs``.

    ``theirs`` is what the API server returned for ``ours``. Fields that only ``theirs`` has are ignored. An
    empty value counts as missing.
    """
    if ours in (None, "", [], {}) and theirs in (None, "", [], {}):
        return
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in ours:
            yield from lost(ours[key], theirs.get(key), f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from lost(mine, other, f"{path}[{number}]")
    elif ours != theirs:
        yield f"{path}: {ours!r} became {theirs!r}"


@pytest.fixture(scope="module")
def kubectl(api: Api, kubeconfig: Path) -> Kubectl:
    return Kubectl(Path(tool("kubectl")), kubeconfig, api.namespace)


def would_be(kubectl: Kubectl, body: Object) -> Object:
    """Return an object as the API server would store it after server-side apply."""
    words = ("apply", "--server-side", "--dry-run=server", "--field-manager=drift", "-o", "json", "-f", "-")
    return dict(json.loads(kubectl.run(*words, stdin=json.dumps(body)).stdout))


@pytest.mark.parametrize("name", SETS)
def test_the_charts_objects_come_back_as_they_are(api: Api, kubectl: Kubectl, name: str) -> None:
    minor = int(str(api.call("GET", "version")["minor"]).rstrip("+"))
    if minor < POLICIES:
        pytest.skip(f"Kubernetes 1.{minor} has no ValidatingAdmissionPolicies")
    objects = [
        each
        for each in rendered("drift", api.namespace, *SETS[name], "crds.install=false")
        if not each["apiVersion"].startswith(FOREIGN)
    ]
    assert len(objects) > 5
    for each in objects:
        where = f"{each['kind']} {each['metadata']['name']}"
        if "namespace" in each["metadata"]:
            # Some values name namespaces that the test cluster does not have.
            each["metadata"]["namespace"] = api.namespace
        assert list(lost(each, would_be(kubectl, each), where)) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_come_back_as_they_are(api: Api, kubectl: Kubectl, path: Path) -> None:
    for document in load_file(path):
        body = {**document.body, "metadata": {**document.body["metadata"], "namespace": api.namespace}}
        where = f"{body['kind']} {body['metadata'].get('name')}"
        assert list(lost(body, would_be(kubectl, body), where)) == []
