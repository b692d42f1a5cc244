"""Helpers to run the operator from this checkout against a real API server and Job controller.

The pods of these tests fit on no node, so no kubelet runs them. The tests write the status of the pods
instead. The Job controller, the garbage collector and the tokens are real.
"""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from rft_api.status import Progress, RunStatus
from rft_operator.cluster import Cluster, Conflict, NotFound
from rft_operator.objects.names import uid8
from rft_run.report import REPORT_PATH, TOKEN_AUDIENCE, Ending, ProgressReport
from tests.ports import free_ports
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
Object = dict[str, Any]
RFTJOBS = "apis/rft.dev/v1alpha1/namespaces/{}/rftjobs"
PODS = "api/v1/namespaces/{}/pods"
JOBS = "apis/batch/v1/namespaces/{}/jobs"
CONFIG_MAPS = "api/v1/namespaces/{}/configmaps"
CRDS = "apis/apiextensions.k8s.io/v1/customresourcedefinitions"
OPERATORS = "apis/apps/v1/deployments?labelSelector=app.kubernetes.io/name%3Drft-operator"


class Api:
    """The API server, called as an administrator. Paths refer to the tests' namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self.namespace = namespace

    def call(self, method: str, path: str, body: Object | None = None) -> Object:
        """Send a request and return the response. ``{}`` in the path is replaced by the namespace."""
        return self._cluster._call(method, path.format(self.namespace), body=body)

    def get(self, path: str, name: str) -> Object:
        """Return an object."""
        return self.call("GET", f"{path}/{name}")

    def find(self, path: str, name: str) -> Object | None:
        """Return an object, or ``None`` if it does not exist."""
        try:
            return self.get(path, name)
        except NotFound:
            return None

    def create(self, path: str, body: Object) -> Object:
        """Create an object in the namespace."""
        return self.call("POST", path, body)

    def patch(self, path: str, name: str, body: Object) -> Object:
        """Send a merge patch."""
        return self.call("PATCH", f"{path}/{name}", body)

    def delete(self, path: str, name: str) -> None:
        """Delete an object. Kubernetes deletes its dependents in the background."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        self.call("DELETE", f"{path}/{name}", options)


def has_cel(api: Api) -> bool:
    """Return whether the API server kept the CRD's CEL rules. Kubernetes 1.20 drops unknown fields."""
    return "x-kubernetes-validations" in json.dumps(api.get(CRDS, "rftjobs.rft.dev"))


def install_crd(api: Api, file: Path = ROOT / "crds" / "rftjobs.rft.dev.yaml") -> Object:
    """Install the CRD in ``file``, or change the installed one to it. Wait until it is established.

    Return the CRD.
    """
    crd: Object = yaml.safe_load(file.read_text())
    name = crd["metadata"]["name"]
    try:
        api.call("POST", CRDS, crd)
    except Conflict:
        api.patch(CRDS, name, {"spec": crd["spec"]})

    def established() -> bool:
        conditions = api.get(CRDS, name).get("status", {}).get("conditions") or []
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

    wait_until("the CRD is established", established)
    return crd


def create_namespace(api: Api) -> None:
    """Create the tests' namespace, and wait until pods can be created in it."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": api.namespace}}
    api.call("POST", "api/v1/namespaces", namespace)
    # The service account "default" is created shortly after its namespace.
    wait_until("the account 'default'", lambda: api.find("api/v1/namespaces/{}/serviceaccounts", "default"))


class Run:
    """An RFTJob in the cluster, with its child objects and its status."""

    def __init__(self, api: Api, made: Object) -> None:
        self.api = api
        self.name: str = made["metadata"]["name"]
        self.uid: str = made["metadata"]["uid"]
        self.child_name = f"{self.name}-{uid8(self.uid)}"

    @property
    def job(self) -> Object:
        """The current RFTJob."""
        return self.api.get(RFTJOBS, self.name)

    @property
    def status(self) -> Object:
        """The current status."""
        return dict(self.job.get("status") or {})

    def condition(self, kind: str) -> Object:
        """Return the condition of this type, or an empty one if there is none."""
        return next((c for c in self.status.get("conditions", []) if c["type"] == kind), {})

    def wait_for_phase(self, phase: str, seconds: float = 30.0) -> Object:
        """Wait until the RFTJob has this phase, and return the status."""
        return wait_until(
            f"{self.name} becomes {phase}",
            lambda: status if (status := self.status).get("phase") == phase else None,
            seconds,
        )

    def child(self) -> Object:
        """Wait for the child Job and return it."""
        return wait_until("the child Job", lambda: self.api.find(JOBS, self.child_name))

    def pods(self) -> list[Object]:
        """Return the RFTJob's pods, the oldest first."""
        selector = f"labelSelector=rft.dev/job-uid%3D{self.uid}"
        items = self.api.call("GET", f"{PODS}?{selector}").get("items") or []
        return sorted(items, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def pod(self) -> Object:
        """Wait until the RFTJob has a pod that is not being deleted. Return the newest such pod."""
        return wait_until(
            "a pod",
            lambda: next((p for p in self.pods()[::-1] if "deletionTimestamp" not in p["metadata"]), None),
        )

    def end_pod(self, pod: Object, exit_code: int, message: str = "") -> None:
        """Set a pod's status to ended, with this exit code and message, as its kubelet would."""
        ended = {"exitCode": exit_code, "reason": "Completed" if exit_code == 0 else "Error"}
        state = {
            "name": "trainer",
            "image": "x",
            "imageID": "x",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": {**ended, "message": message}},
        }
        phase = "Succeeded" if exit_code == 0 else "Failed"
        status = {"phase": phase, "containerStatuses": [state]}
        self.api.patch(PODS, f"{pod['metadata']['name']}/status", {"status": status})

    def end_trainer(self, pod: Object, ending: Ending, progress: Progress | None = None) -> None:
        """Set a pod's status to ended. The termination message is the trainer's last report."""
        run = RunStatus() if progress is None else RunStatus(progress=progress)
        report = ProgressReport(attempt=pod["metadata"]["uid"], sequence=9, run=run, ending=ending)
        self.end_pod(pod, ending.exit_code, json.dumps(report.termination_message()))

    def start_pod(self, pod: Object) -> None:
        """Set a pod's status to Running, as its kubelet would."""
        state = {"name": "trainer", "image": "x", "imageID": "x", "ready": True, "restartCount": 0}
        running = {**state, "state": {"running": {"startedAt": "2026-11-22T18:00:00Z"}}}
        status = {"phase": "Running", "containerStatuses": [running]}
        self.api.patch(PODS, f"{pod['metadata']['name']}/status", {"status": status})

    def token(self, pod: Object, audience: str = TOKEN_AUDIENCE) -> str:
        """Return a token that is bound to a pod, like the token that a kubelet mounts."""
        metadata = pod["metadata"]
        bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        spec = {"audiences": [audience], "expirationSeconds": 3600, "boundObjectRef": bound}
        account = "api/v1/namespaces/{}/serviceaccounts/default/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return str(self.api.create(account, body)["status"]["token"])


class Operator:
    """An operator process from this checkout."""

    def __init__(
        self, kubeconfig: Path, namespace: str, log: Path, *, everywhere: bool = False, **environment: str
    ) -> None:
        """The operator will serve ``namespace``. If ``everywhere`` is true, it will serve all namespaces.

        ``environment`` has more environment variables for the operator's process.
        """
        self._kubeconfig = kubeconfig
        self._namespace = namespace
        self._everywhere = everywhere
        self.environment: dict[str, str] = environment
        self._process: subprocess.Popen[bytes] | None = None
        self.log = log
        self.port, self._health, self._metrics = free_ports(3)
        self.url = f"https://127.0.0.1:{self.port}"
        self.answer: Any = None
        """The ingest's response to the last accepted report."""

    def start(self) -> None:
        """Start the operator and wait until its ingest answers."""
        self.launch()
        wait_until("the operator listens", self.listens)

    def launch(self) -> None:
        """Start the operator without waiting for its ingest: another operator may hold the Lease."""
        program = [sys.executable, "-m", "rft_operator", "--kubeconfig", str(self._kubeconfig)]
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "operator"),
            "RFT_TRAINER_IMAGE": "rft-test/none:1",
            "RFT_NAMESPACE": self._namespace,
            "RFT_INGEST_URL": self.url,
            "RFT_INGEST_PORT": str(self.port),
            "RFT_HEALTH_PORT": str(self._health),
            "RFT_METRICS_PORT": str(self._metrics),
            **self.environment,
        }
        served = [] if self._everywhere else ["--namespace", self._namespace]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([*program, *served], env=environment, stdout=log, stderr=log)

    def stop(self) -> None:
        """Stop the operator with SIGTERM, as the kubelet does."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def kill(self) -> None:
        """Kill the operator with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the operator."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Wait until the operator ends by itself. Return its exit code, negative if a signal ended it."""
        assert self._process is not None
        code = self._process.wait(seconds)
        self._process = None
        return code

    @property
    def is_running(self) -> bool:
        """Whether this operator was started and has not been stopped, killed or waited for."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """PID of the operator."""
        assert self._process is not None
        return self._process.pid

    def health(self) -> tuple[int, str]:
        """Return the liveness probe's HTTP status and text. The status is 0 if there is no response."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health}/healthz", timeout=5) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def metric(self, line: str) -> float:
        """Return the sum of the values in all lines of ``/metrics`` that begin with ``line``."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return sum(float(row.rsplit(" ", 1)[1]) for row in text.splitlines() if row.startswith(line))

    def push(self, ca: str, token: str | None, body: bytes) -> int:
        """Send a report to the ingest, as a trainer would. Return the HTTP status.

        ``ca`` is the CA's certificate as PEM. If ``token`` is None, the request has no token.
        """
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(f"{self.url}{REPORT_PATH}", body, headers)
        context = ssl.create_default_context(cadata=ca)
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:
                self.answer = json.load(answer)
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def check(self) -> None:
        """Fail if the operator has ended, and show the end of its log."""
        assert self._process is not None
        assert self._process.poll() is None, f"the operator ended:\n{self.log.read_text()[-4000:]}"

    def listens(self) -> bool:
        """Return whether the ingest accepts connections. The readiness probe checks the same."""
        self.check()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
