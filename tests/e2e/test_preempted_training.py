"""A job that Kueue preempts during training resumes. Its result equals that of an undisturbed run."""

import json
import os
import time
from collections.abc import Iterator

import pytest

from rft_operator.cluster import connect
from tests.chaos.jobs import STEPS, job, prerequisites, reader
from tests.e2e.conftest import NAMESPACE
from tests.integration.kueue_release_support import KUEUE, installed
from tests.integration.kueue_support import PRIORITY, QUEUE_NAME, Kueue, WaitMessages
from tests.integration.operator_support import JOBS, RFTJOBS, Api, Object, Run
from tests.kubectl import Kubectl
from tests.tables import table
from tests.trainer.loop_support import COMPARED
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.kueue, pytest.mark.timeout(1200)]
PREEMPTIONS = int(os.environ.get("RFT_PREEMPTIONS", "1"))
READER = "preempted-reader"
QUOTA = "500m"
"""CPU quota of the queue. It is enough for one job that requests 300m, but not for two."""


@pytest.fixture(scope="module")
def messages(request: pytest.FixtureRequest) -> WaitMessages:
    return WaitMessages(
        table(request.config, "Kueue: why a job waits", "case", "what its user reads", "seconds")
    )


@pytest.fixture
def api(kubectl: Kubectl) -> Api:
    return Api(connect(str(kubectl.kubeconfig)), NAMESPACE)


@pytest.fixture
def kueue(request: pytest.FixtureRequest, kubectl: Kubectl, api: Api) -> Iterator[Kueue]:
    """Kueue with a queue "train". In this queue jobs of higher priority preempt other jobs."""
    installed(request.config, kubectl.kubeconfig)
    kueue = Kueue(api)
    kueue.flavor("any")
    kueue.cluster_queue("train", "any", QUOTA, preemption={"withinClusterQueue": "LowerPriority"})
    kueue.local_queue("train", "train")
    for name, value in (("low", 1), ("high", 100)):
        body = {"kind": "WorkloadPriorityClass", "metadata": {"name": name}, "value": value}
        kueue.make(f"{KUEUE}/workloadpriorityclasses", body)
    yield kueue
    kueue.remove()


@pytest.fixture
def place(kubectl: Kubectl) -> Iterator[None]:
    """Create the volume for the runs, and a pod that reads it. Delete the pod after the test."""
    pod = reader()
    pod["metadata"]["name"] = READER
    kubectl.apply(*prerequisites(), pod)
    wait_until(
        "the pod that reads the volume runs",
        lambda: kubectl.get("pod", READER)["status"]["phase"] == "Running",
        120,
    )
    yield
    kubectl.run("delete", "pod", READER, "--ignore-not-found", "--wait=false")


def queued(api: Api, name: str) -> Run:
    """Create a deterministic job in the queue. The job saves a checkpoint only when it is stopped."""
    document = job(name, "transformers")
    document["metadata"]["labels"] = {QUEUE_NAME: "train", PRIORITY: "low"}
    document["spec"]["training"] |= {"deterministic": True, "seed": 3}
    document["spec"]["checkpoint"] = {"everySteps": 1000}
    return Run(api, api.create(RFTJOBS, document))


def urgent(name: str) -> Object:
    """Return a Job of higher priority that uses the whole quota for five seconds."""
    container = {
        "name": "urgent",
        "image": "rft-operator:dev",
        "imagePullPolicy": "Never",
        "command": ["sleep", "5"],
        "resources": {"requests": {"cpu": QUOTA}},
    }
    labels = {QUEUE_NAME: "train", PRIORITY: "high"}
    spec = {
        "suspend": True,
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "containers": [container],
                "securityContext": {"runAsUser": 10001, "runAsNonRoot": True},
            }
        },
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
    }


def step_of(run: Run) -> int:
    return int(run.status.get("progress", {}).get("step", 0))


def left(kubectl: Kubectl, run: Run) -> Object:
    """Wait until a run has succeeded. Return its metrics and a hash of its adapter, to compare runs."""
    status = run.wait_for_phase("Succeeded", 300)
    folder = status["output"]["folder"]

    def ask(*command: str) -> str:
        return kubectl.run("exec", READER, "--", *command).stdout

    rows = [json.loads(line) for line in ask("cat", f"{folder}/metrics.jsonl").splitlines()]
    weights = ask("sha256sum", f"{folder}/adapter/adapter_model.safetensors").split()[0]
    return {**{name: [row[name] for row in rows] for name in COMPARED}, "adapter": weights}


def test_a_preempted_training_job_ends_like_an_undisturbed_one(
    kubectl: Kubectl, kueue: Kueue, place: None, api: Api, messages: WaitMessages
) -> None:
    undisturbed = left(kubectl, queued(api, "left-alone"))
    assert undisturbed["step"] == list(range(1, STEPS + 1))
    run = queued(api, "preempted")
    for number in range(PREEMPTIONS):
        least = (number + 1) * STEPS // (PREEMPTIONS + 2)
        wait_until(f"step {least}", lambda least=least: step_of(run) >= least, 180)  # type: ignore[misc]
        began = time.monotonic()
        api.create(JOBS, urgent(f"urgent-{number}"))
        stopped = "Kueue stopped the child Job at "
        messages.until("a training job preempted", run, stopped, since=began, within=15.0)
        wait_until(
            "the preempted job trains again",
            lambda: step_of(run) > 0 and run.status["phase"] == "Running",
            120,
        )
    assert left(kubectl, run) == undisturbed
    status = run.status
    assert status.get("failedPods", 0) == 0
    assert status["progress"]["attempt"] == PREEMPTIONS + 1
    assert status["progress"]["resumedFromStep"] >= STEPS * PREEMPTIONS // (PREEMPTIONS + 2)
