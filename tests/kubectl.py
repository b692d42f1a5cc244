"""Runs kubectl in tests, and reads objects of a cluster."""

import json
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from rft_operator.cluster import Cluster, ClusterError, connect

Object = dict[str, Any]

_PATHS = {
    "configmaps": "api/v1/namespaces/{}/configmaps",
    "deployment": "apis/apps/v1/namespaces/{}/deployments",
    "endpoints": "api/v1/namespaces/{}/endpoints",
    "job": "apis/batch/v1/namespaces/{}/jobs",
    "jobs": "apis/batch/v1/namespaces/{}/jobs",
    "persistentvolumeclaims": "api/v1/namespaces/{}/persistentvolumeclaims",
    "pod": "api/v1/namespaces/{}/pods",
    "pods": "api/v1/namespaces/{}/pods",
    "rftjob": "apis/rft.dev/v1alpha1/namespaces/{}/rftjobs",
}
"""Paths of the kinds that tests read again and again while they wait.

They are read through an open connection. Each run of kubectl takes a fifth of a second of processor time, and
a test that waits for a job reads its status five times per second.
"""


@lru_cache
def _connected(kubeconfig: Path) -> Cluster:
    return connect(str(kubeconfig))


class Kubectl:
    """Runs kubectl with a kubeconfig and a namespace."""

    def __init__(self, program: Path, kubeconfig: Path, namespace: str) -> None:
        self.program, self.kubeconfig, self.namespace = program, kubeconfig, namespace

    def run(
        self, *arguments: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl. If it fails and ``check`` is set, raise AssertionError with its stderr."""
        command = [str(self.program), f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}"]
        result = subprocess.run(
            [*command, *arguments], input=stdin, capture_output=True, text=True, timeout=120, check=False
        )
        assert not check or result.returncode == 0, f"kubectl {' '.join(arguments)}: {result.stderr}"
        return result

    def apply(self, *objects: Object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``kubectl apply -f -`` with these objects."""
        return self.run("apply", "-f", "-", stdin=yaml.safe_dump_all(objects), check=check)

    def get(self, kind: str, name: str) -> Object:
        """Return one object. If it does not exist or cannot be read, raise AssertionError."""
        if kind in _PATHS:
            return self._read(f"{_PATHS[kind]}/{name}")
        return dict(json.loads(self.run("get", kind, name, "-o", "json").stdout))

    def list(self, kind: str, selector: str) -> list[Object]:
        """Return the objects with these labels. If they cannot be read, raise AssertionError."""
        if kind in _PATHS:
            return list(self._read(_PATHS[kind], {"labelSelector": selector})["items"])
        return list(json.loads(self.run("get", kind, "-l", selector, "-o", "json").stdout)["items"])

    def exec(self, pod: str, container: str, *command: str, check: bool = True) -> str:
        """Run a command in a container. Return its output."""
        return self.run("exec", pod, "-c", container, "--", *command, check=check).stdout

    def _read(self, path: str, query: dict[str, str] | None = None) -> Object:
        path = path.format(self.namespace)
        try:
            return _connected(self.kubeconfig)._call("GET", path, query)
        except ClusterError as error:
            raise AssertionError(f"GET {path}: {error}") from error
