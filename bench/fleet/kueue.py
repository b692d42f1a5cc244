"""Runs Kueue as a local process, with the objects of its chart and the rights of its service account."""

import base64
import json
import subprocess
from contextlib import ExitStack
from pathlib import Path

import yaml

from bench.fleet.programs import KUEUE, chart
from bench.scale.api import NAMESPACE, Api, Json, each, until
from tests.cluster.control_plane import ControlPlane, start
from tests.cluster.layout import default_layout
from tests.cluster.tools import helm
from tests.ports import free_port

QUEUE = "fleet"
OWN_NAMESPACE = "kueue-system"
ACCOUNT = f"system:serviceaccount:{OWN_NAMESPACE}:kueue-controller-manager"
_API = "/apis/kueue.x-k8s.io/v1beta2"
_LEFT_OUT = ("Deployment", "APIService")
"""Kinds of objects of Kueue's chart that are not created, because here Kueue is a local process."""
_SECRET = "kueue-webhook-server-cert"
_PATHS = {
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "MutatingWebhookConfiguration": "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "ValidatingWebhookConfiguration": "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "Service": "/api/v1/namespaces/{}/services",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
}


async def start_kueue(api: Api, plane: ControlPlane, program: Path, stack: ExitStack) -> None:
    """Install Kueue's chart, start its controller, and create a queue for all jobs.

    The controller is stopped when ``stack`` closes.

    Raises:
        SystemExit: the controller does not answer.
    """
    port = free_port()
    objects = [part for part in rendered() if part["kind"] not in _LEFT_OUT]
    for part in objects:
        here(part, port)
    await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": OWN_NAMESPACE}})

    async def make(part: Json) -> None:
        await api.call("POST", _PATHS[part["kind"]].format(part["metadata"].get("namespace")), part)

    await each(objects, make)
    certificates = plane.folder / "kueue-certificates"
    certificates.mkdir()
    path = plane.folder / "kueue.yaml"
    path.write_text(json.dumps(configuration(objects, port, certificates)))
    login = plane.login(KUEUE, ACCOUNT, "system:serviceaccounts")
    # The server of the visibility API would write its certificate into /visibility, so it is turned off.
    options = [f"--config={path}", f"--kubeconfig={login}", "--feature-gates=VisibilityOnDemand=false"]
    start(stack, plane.folder, [str(program), *options, "--zap-log-level=1"])
    await _project(api, certificates)

    async def answers() -> bool:
        flavor = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ResourceFlavor"}
        probe = {**flavor, "metadata": {"name": "probe"}}
        return await api.accepts(f"{_API}/resourceflavors?dryRun=All", probe)

    await until("Kueue's webhooks answer", answers, 180)
    await _make_queue(api)


async def _project(api: Api, folder: Path) -> None:
    """Write the certificate of Kueue's webhooks into ``folder``, where a kubelet would mount it."""
    data: Json = {}

    async def made() -> bool:
        data.update(
            (await api.call("GET", _PATHS["Secret"].format(OWN_NAMESPACE) + f"/{_SECRET}")).get("data") or {}
        )
        return "tls.crt" in data

    await until("Kueue has created its certificate", made, 60)
    for name, content in data.items():
        (folder / name).write_bytes(base64.b64decode(content))


def rendered() -> list[Json]:
    """Render Kueue's chart, and return its objects."""
    program = helm(default_layout().tools)
    command = [str(program), "template", "kueue", str(chart()), "--namespace", OWN_NAMESPACE]
    said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return [part for part in yaml.load_all(said, yaml.CSafeLoader) if part]


def here(part: Json, port: int) -> None:
    """Change an object of Kueue's chart, in place, so that its webhook requests go to this machine.

    A Service becomes an alias of this machine. In the configuration of a webhook the port becomes ``port``.
    """
    if part["kind"] == "Service":
        part["spec"] = {"type": "ExternalName", "externalName": "localhost"}
    clients = [hook["clientConfig"] for hook in part.get("webhooks", [])]
    conversion = part.get("spec", {}).get("conversion", {})
    if "webhook" in conversion:
        clients.append(conversion["webhook"]["clientConfig"])
    for client in clients:
        client["service"]["port"] = port


def configuration(objects: list[Json], port: int, certificates: Path) -> Json:
    """Return the controller's configuration from the chart, changed for a local process."""
    maps = [part["data"] for part in objects if part["kind"] == "ConfigMap"]
    text = next(data["controller_manager_config.yaml"] for data in maps)
    config: Json = yaml.load(text, yaml.CSafeLoader)
    config["webhook"] = {"host": "127.0.0.1", "port": port, "certDir": str(certificates)}
    config["leaderElection"] = {"leaderElect": False}
    config["health"] = {"healthProbeBindAddress": f"127.0.0.1:{free_port()}"}
    config["metrics"] = {"bindAddress": "0"}
    return config


async def _make_queue(api: Api) -> None:
    """Create a ResourceFlavor, a ClusterQueue with enough quota for all jobs, and a LocalQueue."""
    kind = {"apiVersion": "kueue.x-k8s.io/v1beta2"}
    named = {"metadata": {"name": QUEUE}}
    await api.call("POST", f"{_API}/resourceflavors", {**kind, "kind": "ResourceFlavor", **named, "spec": {}})
    quotas = {"cpu": "1M", "memory": "1Pi", "nvidia.com/gpu": "1M"}
    resources = [{"name": name, "nominalQuota": quota} for name, quota in quotas.items()]
    group = {"coveredResources": list(quotas), "flavors": [{"name": QUEUE, "resources": resources}]}
    spec: Json = {"namespaceSelector": {}, "resourceGroups": [group]}
    body = {**kind, "kind": "ClusterQueue", **named, "spec": spec}
    await api.call("POST", f"{_API}/clusterqueues", body)
    body = {**kind, "kind": "LocalQueue", **named, "spec": {"clusterQueue": QUEUE}}
    await api.call("POST", f"{_API}/namespaces/{NAMESPACE}/localqueues", body)
