"""Helm releases of the operator."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from tests.integration.account_support import tool
from tests.kubectl import Kubectl, Object
from tests.skew.releases import Release
from tests.waiting import wait_until

CRD = "rftjobs.rft.dev"
_NAME = "rft-operator"
_HELM_SECONDS = 600


@dataclass(frozen=True)
class InstalledOperator:
    """A Helm release of the operator, in the namespace of ``kubectl``."""

    kubectl: Kubectl

    @property
    def user(self) -> str:
        """The operator's user name in the audit log."""
        return f"system:serviceaccount:{self.kubectl.namespace}:{_NAME}"

    def helm(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run helm. If it fails and ``check`` is set, raise AssertionError with its output."""
        where = ("--namespace", self.kubectl.namespace, "--kubeconfig", str(self.kubectl.kubeconfig))
        done = subprocess.run(
            [tool("helm"), *words, *where], capture_output=True, text=True, timeout=_HELM_SECONDS, check=False
        )
        assert not check or done.returncode == 0, f"helm {' '.join(words)}: {done.stdout}{done.stderr}"
        return done

    def install(
        self, release: Release, tag: str, *values: str, options: Sequence[str] = (), check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Install or upgrade to the chart of ``release``, with the command of docs/platform.md.

        ``tag`` is that of the operator's image, ``values`` are arguments of ``helm --set``, and ``options``
        are further options of ``helm upgrade``.
        """
        images = (
            "image.repository=rft-operator",
            f"image.tag={tag}",
            "trainer.image.repository=rft-trainer",
            "trainer.image.tag=dev",
        )
        settings = [word for value in (*images, *values) for word in ("--set", value)]
        command = ("upgrade", "--install", _NAME, str(release.chart), "--create-namespace", "--wait")
        done = self.helm(*command, *settings, *options, check=check)
        if check:
            wait_until(f"only operators of {tag} are left", lambda: self._images() == {_image(tag)}, 120)
        return done

    def roll_back(self, tag: str) -> None:
        """Go back to the first revision, whose image has this tag."""
        self.helm("rollback", _NAME, "1", "--wait")
        wait_until(f"only operators of {tag} are left", lambda: self._images() == {_image(tag)}, 120)

    def uninstall(self) -> None:
        """Remove the release. Wait until its pods are gone."""
        self.helm("uninstall", _NAME, "--ignore-not-found", "--wait")
        wait_until("the operator's pods are gone", lambda: not self._pods(), 120)

    def test(self) -> None:
        """Run ``helm test``."""
        self.helm("test", _NAME)

    def code(self) -> str:
        """Return the path from which an operator's pod imports ``rft_operator``: it shows the release."""
        name = self._pods()[0]["metadata"]["name"]
        return imported(self.kubectl, name, "operator", "rft_operator")

    def _pods(self) -> list[Object]:
        return self.kubectl.list("pods", f"app.kubernetes.io/name={_NAME}")

    def _images(self) -> set[str]:
        return {pod["spec"]["containers"][0]["image"] for pod in self._pods()}


def _image(tag: str) -> str:
    return f"rft-operator:{tag}"


def imported(kubectl: Kubectl, pod: str, container: str, package: str) -> str:
    """Return the path of the file that Python imports as ``package`` in a container."""
    code = f"import {package}; print({package}.__file__)"
    return kubectl.exec(pod, container, "python", "-c", code).strip()


def served_fields(kubectl: Kubectl) -> set[str]:
    """Return the names of the fields of an RFTJob's spec in the installed CRD."""
    return _fields(kubectl.get("crd", CRD))


def fields(release: Release) -> set[str]:
    """Return the names of the fields of an RFTJob's spec in the CRD of ``release``."""
    return _fields(yaml.safe_load(release.crd.read_text()))


def _fields(crd: Any) -> set[str]:
    (version,) = crd["spec"]["versions"]
    return set(version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"])
