"""End-to-end tests of a finished run: its folder is downloaded, and its adapter is served."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.chaos.jobs import job, prerequisites
from tests.e2e.conftest import NAMESPACE, ROOT
from tests.e2e.jobs_support import ended
from tests.kubectl import Kubectl
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NAME = "in-use"
READERS = "app.kubernetes.io/name=rft-reader"
ADDED = {"run.json", "status.yaml", "report.html"}
"""Files that rft download writes itself."""


@pytest.fixture(scope="module", autouse=True)
def _finished(kubectl: Kubectl) -> None:
    """Train one short job to its end."""
    manifest = job(NAME, "transformers")
    manifest["spec"]["stop"] = {"maxSteps": 2}
    manifest["spec"]["checkpoint"] = {"everySteps": 1}
    kubectl.apply(*prerequisites(), manifest)
    found = wait_until("the job ends", lambda: ended(kubectl, NAME), 600)
    assert found["phase"] == "Succeeded", found["message"]


def rft(kubectl: Kubectl, *arguments: str) -> "subprocess.Popen[str]":
    """Start rft with the cluster's kubeconfig."""
    code = "import sys; from rft_cli.main import app; app(sys.argv[1:])"
    environment = {
        **os.environ, "KUBECONFIG": str(kubectl.kubeconfig), "PYTHONPATH": str(ROOT / "operator"),
    }  # fmt: skip
    command = [sys.executable, "-c", code, *arguments, "-n", NAMESPACE]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finished(process: "subprocess.Popen[str]") -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ADDED and not path.name.startswith(".")
    }


def digests_on_the_volume(kubectl: Kubectl, pod: str) -> dict[str, str]:
    """Return digests of the run's files, computed by sha256sum in a pod that mounts them."""
    parts = "adapter checkpoints rollouts metrics.jsonl"
    said = kubectl.exec(pod, "reader", "sh", "-c", f"cd /folder && find {parts} -type f | xargs sha256sum")
    return {path: digest for digest, path in (line.split(maxsplit=1) for line in said.splitlines())}


def running_reader(kubectl: Kubectl) -> str | None:
    pods = kubectl.list("pods", READERS)
    return next((p["metadata"]["name"] for p in pods if p["status"].get("phase") == "Running"), None)


def test_an_interrupted_download_deletes_its_pod_and_resumes_to_equal_digests(
    kubectl: Kubectl, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    first = rft(kubectl, "download", NAME, "--output", str(folder))
    wait_until("the pod that reads the volume exists", lambda: kubectl.list("pods", READERS), 120)
    first.send_signal(signal.SIGSTOP)  # so that it is still downloading when it is interrupted
    pod = wait_until("the pod runs", lambda: running_reader(kubectl), 120)
    expected = digests_on_the_volume(kubectl, pod)
    first.send_signal(signal.SIGTERM)
    first.send_signal(signal.SIGCONT)
    said, _ = first.communicate(timeout=60)
    assert first.returncode == 130, said
    wait_until("the pod is deleted", lambda: not kubectl.list("pods", READERS), 60)
    finished(rft(kubectl, "download", NAME, "--output", str(folder)))
    assert digests(folder).items() >= expected.items()
    assert {"adapter/adapter_model.safetensors", "metrics.jsonl"} <= set(expected)
    wait_until("the pod is deleted", lambda: not kubectl.list("pods", READERS), 60)
    assert "reward" in finished(rft(kubectl, "curve", str(folder)))


def test_the_rollouts_of_a_job_are_shown_and_its_server_is_accepted(kubectl: Kubectl) -> None:
    assert "step 2, row" in finished(rft(kubectl, "samples", NAME))
    printed = finished(rft(kubectl, "serve", NAME)).partition("When it is ready")[0]
    objects = list(yaml.safe_load_all(printed))
    assert [each["kind"] for each in objects] == ["Service", "Deployment"]
    accepted = kubectl.run("apply", "--dry-run=server", "-f", "-", stdin=printed).stdout
    assert f"service/serve-{NAME} created" in accepted
    assert f"deployment.apps/serve-{NAME} created" in accepted
