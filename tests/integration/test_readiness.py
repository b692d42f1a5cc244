"""Helm and kubectl wait until an RFTJob is ready. They decide this by the rules of kstatus.

So the conditions of an RFTJob must follow these rules. The phase Queued is not tested, because it needs a
server that supports suspended Jobs. Queued has the same conditions as Pending.
"""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rft_run.report import Ending
from tests.integration.account_support import tool
from tests.integration.ingest_support import body
from tests.integration.operator_support import CONFIG_MAPS, RFTJOBS, Api, Object, Operator, Run
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster
TIMEOUT = "60s"
STILL_SECONDS = 2.0
"""The tests check after this many seconds that helm is still waiting.

If an RFTJob were wrongly reported as ready, helm would end sooner: it watches the RFTJob.
"""


class Release:
    """A Helm release that consists of one RFTJob, installed with ``helm --wait``."""

    def __init__(self, api: Api, kubeconfig: Path, folder: Path, manifest: Object) -> None:
        self.api, self.manifest = api, manifest
        self.name: str = manifest["metadata"]["name"]
        self._options = ("--kubeconfig", str(kubeconfig), "--namespace", api.namespace)
        self._chart = folder / "chart"
        (self._chart / "templates").mkdir(parents=True)
        about = {"apiVersion": "v2", "name": "job", "version": "0.1.0"}
        (self._chart / "Chart.yaml").write_text(json.dumps(about))
        self._process: subprocess.Popen[str] | None = None

    def apply(self, **spec: object) -> None:
        """Install or upgrade the release in the background, with these fields of the spec changed."""
        self.manifest["spec"].update(spec)
        (self._chart / "templates" / "job.yaml").write_text(json.dumps(self.manifest))
        program = [tool("helm"), "upgrade", "--install", self.name, str(self._chart), *self._options]
        self._process = subprocess.Popen(
            [*program, "--wait", "--timeout", TIMEOUT],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    @property
    def run(self) -> Run:
        """Wait for the RFTJob and return it."""
        return Run(self.api, wait_until("helm creates the RFTJob", lambda: self.api.find(RFTJOBS, self.name)))

    def waits(self) -> bool:
        """Return whether helm is still waiting after ``STILL_SECONDS``."""
        assert self._process is not None
        time.sleep(STILL_SECONDS)
        return self._process.poll() is None

    def ends(self) -> tuple[int, str]:
        """Wait until helm ends. Return its exit status and its output."""
        assert self._process is not None
        said, _ = self._process.communicate(timeout=90)
        return self._process.returncode, said

    def remove(self) -> None:
        """Uninstall the release."""
        self._kill()
        subprocess.run([tool("helm"), "uninstall", self.name, *self._options], check=False)

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


@pytest.fixture
def release(
    api: Api, operator: Operator, kubeconfig: Path, tmp_path: Path, manifest: Callable[..., Object]
) -> Iterator[Release]:
    """A Helm release that is not installed yet."""
    made = Release(api, kubeconfig, tmp_path, manifest())
    yield made
    made.remove()


def test_helm_waits_until_the_trainer_reports(release: Release, api: Api, operator: Operator) -> None:
    operator.stop()
    release.apply()
    run = release.run
    assert release.waits(), "the operator has not seen the job yet"
    operator.start()
    run.wait_for_phase("Pending")
    pod = run.pod()
    assert release.waits(), "its pod is pending"
    run.start_pod(pod)
    run.wait_for_phase("Starting")
    assert release.waits(), "the trainer has not reported yet"
    ca = api.get(CONFIG_MAPS, f"{run.child_name}-ca")["data"]["ca.crt"]
    assert operator.push(ca, run.token(pod), body(pod, 1)) == 200
    assert release.ends()[0] == 0
    assert run.status["phase"] == "Running"


def test_helm_reports_why_a_job_cannot_start(release: Release) -> None:
    release.apply(model={"name": "org/secret"})
    code, said = release.ends()
    assert code != 0
    assert "spec.model.parameters" in said


def test_helm_reports_why_a_run_failed(release: Release) -> None:
    release.apply()
    pod = release.run.pod()
    ending = Ending(exit_code=11, reason="DataError", message="train.jsonl line 7: the row has no messages")
    release.run.end_trainer(pod, ending)
    code, said = release.ends()
    assert code != 0
    assert "line 7" in said


def test_helm_takes_a_suspended_or_cancelled_job_as_ready(release: Release) -> None:
    for field, phase in (("suspend", "Suspended"), ("cancel", "Cancelled")):
        release.apply(**{field: True})
        code, said = release.ends()
        assert code == 0, said
        assert release.run.status["phase"] == phase


def test_kubectl_waits_for_the_end_of_a_run(release: Release, kubeconfig: Path) -> None:
    release.apply()
    run = release.run
    pod = run.pod()
    command = [tool("kubectl"), "--kubeconfig", str(kubeconfig), "--namespace", run.api.namespace, "wait"]
    wait = [*command, f"rftjob/{run.name}", f"--timeout={TIMEOUT}"]
    with subprocess.Popen([*wait, "--for=condition=Complete"]) as complete:
        ending = Ending(exit_code=0, reason="Completed", message="1 epoch trained")
        run.end_trainer(pod, ending)
        assert complete.wait(90) == 0
    assert release.ends()[0] == 0
    assert run.status["phase"] == "Succeeded"
    for condition in ("Ready", "Complete"):
        assert subprocess.run([*wait, f"--for=condition={condition}"]).returncode == 0
