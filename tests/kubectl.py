"""Runs kubectl in tests."""

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]


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
        """Return one object."""
        return dict(json.loads(self.run("get", kind, name, "-o", "json").stdout))

    def list(self, kind: str, selector: str) -> list[Object]:
        """Return the objects with these labels."""
        return list(json.loads(self.run("get", kind, "-l", selector, "-o", "json").stdout)["items"])

    def exec(self, pod: str, container: str, *command: str, check: bool = True) -> str:
        """Run a command in a container. Return its output."""
        return self.run("exec", pod, "-c", container, "--", *command, check=check).stdout
