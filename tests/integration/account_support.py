"""Creates the operator's service account with the chart's rights, and reads its requests in the audit log."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.cluster.layout import default_layout
from tests.integration.operator_support import ROOT, Api, Object

_RBAC = "apis/rbac.authorization.k8s.io/v1"
_PATHS = {
    "ServiceAccount": "api/v1/namespaces/{}/serviceaccounts",
    "Role": f"{_RBAC}/namespaces/{{}}/roles",
    "RoleBinding": f"{_RBAC}/namespaces/{{}}/rolebindings",
    "ClusterRole": f"{_RBAC}/clusterroles",
    "ClusterRoleBinding": f"{_RBAC}/clusterrolebindings",
}


class Right(NamedTuple):
    """A right: permission for one verb on one kind of resource."""

    group: str
    resource: str
    verb: str


class Request(NamedTuple):
    """One request, as the API server's audit log records it."""

    right: Right
    name: str
    namespace: str
    code: int
    refused: bool
    """Whether the request was refused because a right is missing."""
    received: str
    """Time of the request, as a string that sorts by time."""


def tool(name: str) -> str:
    """Return the path of a program. Skip the test if it is not found."""
    path = shutil.which(name) or shutil.which(name, path=default_layout().tools)
    if path is None:
        pytest.skip(f"no {name}: `python3 -m tests.cluster tools` fetches it")
    return path


def rendered(release: str, namespace: str, *values: str) -> list[Object]:
    """Return the objects that the chart renders. Skip the test if helm is not found."""
    options = [word for value in values for word in ("--set", value)]
    chart = str(ROOT / "charts" / "rft-operator")
    program = [tool("helm"), "template", release, chart, "--namespace", namespace, *options]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@dataclass(frozen=True)
class Account:
    """A service account with exactly the rights that the chart grants to the operator."""

    api: Api
    name: str
    objects: tuple[Object, ...]

    @property
    def user(self) -> str:
        """The account's user name in the audit log."""
        return f"system:serviceaccount:{self.api.namespace}:{self.name}"

    @property
    def rights(self) -> set[Right]:
        """The rights that the chart's roles grant."""
        return {
            Right(group, resource, verb)
            for made in self.objects
            for rule in made.get("rules", [])
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    def kubeconfig(self, admin: Path, path: Path) -> Path:
        """Write a kubeconfig with a token of this account. Server and CA are copied from ``admin``."""
        token = self.api.create(f"{_PATHS['ServiceAccount']}/{self.name}/token", _TOKEN)["status"]["token"]
        config: dict[str, Any] = yaml.safe_load(admin.read_text())
        config["users"] = [{"name": "operator", "user": {"token": token}}]
        config["contexts"][0]["context"]["user"] = "operator"
        config["current-context"] = config["contexts"][0]["name"]
        path.write_text(yaml.safe_dump(config))
        return path

    def remove(self) -> None:
        """Delete the account's cluster-scoped objects. Its other objects are deleted with their namespace."""
        for made in self.objects:
            if made["kind"].startswith("Cluster"):
                self.api.delete(_PATHS[made["kind"]], made["metadata"]["name"])


_TOKEN = {
    "apiVersion": "authentication.k8s.io/v1",
    "kind": "TokenRequest",
    "spec": {"expirationSeconds": 7200},
}


def account(cluster: Api, release: str, *values: str) -> Account:
    """Create the operator's service account and its roles from the chart, in the namespace of ``cluster``.

    The chart's roles for users and for the webhook are not created, because they give the operator no rights.
    """
    only = ("rbac.aggregate=false", "webhook.enabled=false")
    objects = tuple(o for o in rendered(release, cluster.namespace, *values, *only) if o["kind"] in _PATHS)
    for made in objects:
        cluster.create(_PATHS[made["kind"]], made)
    (name,) = (o["metadata"]["name"] for o in objects if o["kind"] == "ServiceAccount")
    return Account(cluster, name, objects)


class Audit:
    """The API server's audit log. Skips the test if this machine has no such log."""

    def __init__(self) -> None:
        self._path = default_layout().logs / "audit.log"
        if not self._path.exists():
            pytest.skip(f"no audit log at {self._path}: the test cluster of `make cluster-up` writes one")

    def requests(self, user: str) -> list[Request]:
        """Return the requests of ``user``, the oldest first."""
        events: list[dict[str, Any]] = []
        # The API server begins a new file after 100 MB, and gives the full one a name with the time.
        for path in sorted(self._path.parent.glob(f"{self._path.stem}*{self._path.suffix}")):
            with path.open("rb") as log:
                # The last line may be incomplete.
                events += [json.loads(line) for line in log if user.encode() in line and line.endswith(b"\n")]
        found = {
            e["auditID"]: _request(e) for e in events if e["user"]["username"] == user and "objectRef" in e
        }
        return sorted(found.values(), key=lambda request: request.received)


def _request(event: dict[str, Any]) -> Request:
    reference = event["objectRef"]
    resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
    return Request(
        Right(reference.get("apiGroup", ""), resource, event["verb"]),
        reference.get("name", ""),
        reference.get("namespace", ""),
        event.get("responseStatus", {}).get("code", 0),
        event.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid",
        event["requestReceivedTimestamp"],
    )
