"""A user who has only the built-in role ``edit`` in one namespace can train a job there.

The user cannot write a job's status. The user has no access to the operator's namespace and to objects of the
whole cluster.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chaos.jobs import job, prerequisites
from tests.e2e.conftest import NAMESPACE, ROOT
from tests.e2e.jobs_support import ended, pods
from tests.kubectl import Kubectl, Object
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

USER, NAME = "ann", "of-a-user"
SYSTEM = "rft-system"
TOKEN: Object = {
    "apiVersion": "authentication.k8s.io/v1",
    "kind": "TokenRequest",
    "spec": {"expirationSeconds": 7200},
}


def token(kubectl: Kubectl) -> str:
    """Return a token of the user's ServiceAccount.

    The API is called directly, because Kubernetes 1.20 has no ``kubectl create token``.
    """
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{USER}/token"
    done = kubectl.run("create", "--raw", path, "-f", "-", stdin=json.dumps(TOKEN))
    return str(json.loads(done.stdout)["status"]["token"])


@pytest.fixture(scope="module")
def user(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """kubectl as a user who has only the role ``edit`` in the tests' namespace."""
    kubectl.run("create", "serviceaccount", USER)
    kubectl.run("create", "rolebinding", USER, "--clusterrole=edit", f"--serviceaccount={NAMESPACE}:{USER}")
    config: dict[str, Any] = yaml.safe_load(kubectl.kubeconfig.read_text())
    current = config.get("current-context") or config["contexts"][0]["name"]
    context = next(each["context"] for each in config["contexts"] if each["name"] == current)
    context |= {"user": USER, "namespace": NAMESPACE}
    config |= {"users": [{"name": USER, "user": {"token": token(kubectl)}}], "current-context": current}
    own = tmp_path_factory.mktemp("user") / "kubeconfig"
    own.write_text(yaml.safe_dump(config))
    yield Kubectl(kubectl.program, own, NAMESPACE)
    kubectl.run("delete", "rolebinding,serviceaccount", USER, check=False)


def rft(user: Kubectl, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``rft`` as the user."""
    code = "from rft_cli.main import app; app()"
    paths = os.pathsep.join((str(ROOT / "operator"), os.environ.get("PYTHONPATH", "")))
    env = {**os.environ, "KUBECONFIG": str(user.kubeconfig), "PYTHONPATH": paths}
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, check=False)


def test_a_user_with_edit_goes_from_the_manifest_to_the_curve(user: Kubectl, tmp_path: Path) -> None:
    manifest = job(NAME, "transformers")
    manifest["spec"]["stop"] = {"maxSteps": 2}
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump_all([*prerequisites(), manifest]))
    user.run("apply", "-f", str(file))
    found = wait_until("the job ends", lambda: ended(user, NAME), 600)
    assert found["phase"] == "Succeeded", found["message"]
    assert [point["step"] for point in found["reward"]["history"]] == [1, 2]
    drawn = rft(user, "curve", NAME)
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout.strip()
    (pod,) = pods(user, NAME)
    assert user.run("logs", pod["metadata"]["name"], "-c", "trainer").stdout
    user.run("delete", "rftjob", NAME)


@pytest.mark.parametrize("kind", ["secrets", "configmaps", "pods", "leases.coordination.k8s.io", "rftjobs"])
def test_the_same_user_cannot_read_the_operators_namespace(user: Kubectl, kind: str) -> None:
    refused = user.run("get", kind, "--namespace", SYSTEM, check=False)
    assert refused.returncode != 0
    assert "forbidden" in refused.stderr.lower()
    own = user.run("get", "rftjobs", check=False)
    assert own.returncode == 0, own.stderr


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("patch", "rftjobs --subresource=status"),
        ("get", "nodes"),
        ("create", "clusterroles"),
        ("update", "customresourcedefinitions.apiextensions.k8s.io"),
        ("list", "rftjobs --all-namespaces"),
    ],
)
def test_the_role_goes_no_further_than_the_namespace(user: Kubectl, verb: str, resource: str) -> None:
    answer = user.run("auth", "can-i", verb, *resource.split(), check=False)
    assert answer.stdout.strip() == "no", answer.stdout + answer.stderr
