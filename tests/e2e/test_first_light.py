"""End-to-end tests of complete runs on a real cluster with vLLM, from the manifest to the reward curve."""

import os
import signal
from typing import Any

import pytest

from rft_run.config import GRADER_CONTAINER, TOKEN_DIR, TRAINER_CONTAINER
from tests.chaos.jobs import job, prerequisites
from tests.e2e.conftest import variant
from tests.e2e.jobs_support import condition, ended, pods, status
from tests.e2e.processes import processes_with
from tests.kubectl import Kubectl, Object
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

MINUTE = 60.0
TRAINER_UID = 10001
# A grader that raises an error for six of the 120 rows. A step has about five rows. A run fails if more than
# half of a step's completions cannot be graded.
RAISING = """
def grade(completion, row):
    if row["answer"] == 35:
        raise ValueError("a grader that raises")
    return 1
"""


def step(kubectl: Kubectl, name: str) -> int:
    return int(status(kubectl, name).get("progress", {}).get("step", 0))


def running_pod(kubectl: Kubectl, name: str) -> str | None:
    return next(
        (p["metadata"]["name"] for p in pods(kubectl, name) if p["status"]["phase"] == "Running"), None
    )


def with_python_grader(example: list[Object], name: str, code: str, **changes: Any) -> list[Object]:
    objects = variant(example, name, **changes)
    made = next(o for o in objects if o["kind"] == "RFTJob")
    made["spec"]["graders"].append({"name": "own-code", "weight": 0.1, "python": {"inline": code}})
    return objects


def test_a_manifest_out_of_range_is_refused_by_the_api_server(
    kubectl: Kubectl, example: list[Object]
) -> None:
    result = kubectl.apply(*variant(example, "too-many", sampling={"topK": 101}), check=False)
    assert result.returncode != 0
    assert "spec.sampling.topK" in result.stderr
    assert "less than or equal to 100" in result.stderr


def test_a_broken_line_of_the_dataset_fails_the_job_and_is_named(
    kubectl: Kubectl, example: list[Object]
) -> None:
    objects = variant(example, "broken-line")
    data = next(o for o in objects if o["kind"] == "ConfigMap")
    data["metadata"]["name"] = "broken-rows"
    key, rows = next(iter(data["data"].items()))
    lines = rows.splitlines()
    lines[6] = '{"messages": ['
    data["data"][key] = "\n".join(lines)
    broken = next(o for o in objects if o["kind"] == "RFTJob")
    broken["spec"]["dataset"] = {"configMap": {"name": "broken-rows", "key": key}}
    kubectl.apply(*objects)
    found = wait_until("the job ends", lambda: ended(kubectl, "broken-line"), 4 * MINUTE)
    assert found["phase"] == "Failed"
    failed = condition(found, "Failed")
    assert failed["status"] == "True"
    assert failed["reason"] == "DataError"
    assert "line 7" in failed["message"]


def test_a_run_succeeds_and_its_pod_has_no_further_rights(kubectl: Kubectl, example: list[Object]) -> None:
    name = "first-light"
    kubectl.apply(
        *with_python_grader(example, name, "def grade(completion, row):\n    return len(completion) < 8\n")
    )
    pod = wait_until("a pod runs", lambda: running_pod(kubectl, name), 5 * MINUTE)

    # User and capabilities of the containers, as the kernel reports them.
    for container in (TRAINER_CONTAINER, GRADER_CONTAINER):
        facts = dict(
            line.split(":", 1)
            for line in kubectl.exec(pod, container, "cat", "/proc/1/status").splitlines()
            if ":" in line
        )
        assert facts["Uid"].split()[0] not in ("0", "")
        assert int(facts["CapEff"], 16) == 0
        assert int(facts["CapBnd"], 16) == 0
        assert facts["NoNewPrivs"].strip() == "1"
        assert facts["Seccomp"].strip() == "2"
        default_token = kubectl.exec(
            pod, container, "sh", "-c", "ls /var/run/secrets/kubernetes.io 2>&1 || true", check=False
        )
        assert "No such file" in default_token

    # The grader's container cannot read the trainer's token, the Secrets or the checkpoints.
    seen = kubectl.exec(
        pod,
        GRADER_CONTAINER,
        "sh",
        "-c",
        "ls -d /var/run/rft /etc/rft/* /runs /data /scratch 2>/dev/null; env",
        check=False,
    )
    for hidden in (
        TOKEN_DIR,
        "/etc/rft/config",
        "/etc/rft/ca",
        "/etc/rft/secrets",
        "/runs",
        "/data",
        "/scratch",
        "TOKEN",
    ):
        assert hidden not in seen.replace("/etc/rft/graders", "")

    # The token is valid only for the operator's ingest, so the API server refuses it.
    answer = kubectl.exec(
        pod,
        TRAINER_CONTAINER,
        "python",
        "-c",
        "import os, ssl, urllib.request, urllib.error\n"
        f"token = open('{TOKEN_DIR}/token').read()\n"
        "context = ssl.create_default_context(); context.check_hostname = False\n"
        "context.verify_mode = ssl.CERT_NONE\n"
        f"url = 'https://{api_server_address(kubectl)}/api/v1/namespaces'\n"
        "request = urllib.request.Request(url, headers={'Authorization': 'Bearer ' + token})\n"
        "try:\n    print(urllib.request.urlopen(request, context=context).status)\n"
        "except urllib.error.HTTPError as error:\n    print(error.code)\n",
    )
    assert answer.strip() == "401"

    # The reward curve grows during the training.
    seen_steps: set[int] = set()

    def moved() -> bool:
        found = status(kubectl, name)
        if found.get("phase") == "Running":
            seen_steps.update(point["step"] for point in found.get("reward", {}).get("history", []))
        return len(seen_steps) >= 2 or found.get("phase") in ("Succeeded", "Failed")

    wait_until("the reward curve grows", moved, 10 * MINUTE)
    assert len(seen_steps) >= 2, status(kubectl, name)
    found = wait_until("the job ends", lambda: ended(kubectl, name), 10 * MINUTE)
    assert found["phase"] == "Succeeded", [found["message"], found["conditions"]]
    assert condition(found, "Complete")["reason"] == "MaxStepsReached"
    assert found["progress"]["step"] == 4
    assert [point["step"] for point in found["reward"]["history"]] == [1, 2, 3, 4]
    assert found["evaluation"]["graders"]
    assert found["output"]["adapter"]
    assert volume_files(kubectl, example, found["output"]["adapter"]) >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def api_server_address(kubectl: Kubectl) -> str:
    """Return the address at which pods reach the API server, as in a URL: the address of its Service."""
    service = kubectl.run("get", "service", "kubernetes", "-n", "default", "-o", "jsonpath={.spec.clusterIP}")
    address = service.stdout.strip()
    return f"[{address}]" if ":" in address else address


def volume_files(kubectl: Kubectl, example: list[Object], folder: str) -> set[str]:
    """Return the names of the files in a folder of the example's volume.

    A pod that mounts the volume lists the files.
    """
    claim = next(o for o in example if o["kind"] == "RFTJob")["spec"]["storage"]["persistentVolumeClaim"][
        "claimName"
    ]
    reader = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "reader"},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsUser": TRAINER_UID, "runAsNonRoot": True, "fsGroup": 10000},
            "containers": [
                {
                    "name": "reader",
                    "image": "rft-operator:dev",
                    "imagePullPolicy": "Never",
                    "command": ["ls", folder],
                    "volumeMounts": [{"name": "runs", "mountPath": "/runs"}],
                }
            ],
            "volumes": [{"name": "runs", "persistentVolumeClaim": {"claimName": claim}}],
        },
    }
    kubectl.run("delete", "pod", "reader", "--ignore-not-found", "--wait")
    kubectl.apply(reader)
    wait_until(
        "the pod that reads the volume has ended",
        lambda: kubectl.get("pod", "reader")["status"]["phase"] in ("Succeeded", "Failed"),
        2 * MINUTE,
    )
    return set(kubectl.run("logs", "reader").stdout.split())


@pytest.mark.long
def test_killed_processes_cost_at_most_the_steps_since_the_last_checkpoint(kubectl: Kubectl) -> None:
    name = "killed"
    steps, interval = 45, 2  # the status keeps up to 50 points of the curve
    manifest = job(name, "vllm")
    manifest["spec"]["graders"].append({"name": "own-code", "weight": 0.1, "python": {"inline": RAISING}})
    manifest["spec"] |= {"stop": {"maxSteps": steps}, "checkpoint": {"everySteps": interval}}
    kubectl.apply(*prerequisites(), manifest)
    wait_until("two steps are completed", lambda: step(kubectl, name) >= 2, 12 * MINUTE)

    servers = set(processes_with("vllm.entrypoints", uid=TRAINER_UID))
    if not servers:
        pytest.skip("the node runs on another machine, so the test cannot kill its processes")
    for process in servers:
        os.kill(process, signal.SIGKILL)
    found = wait_until(
        "vLLM is restarted in the same pod",
        lambda: (
            ((s := status(kubectl, name)).get("progress", {}).get("samplersRestarted", 0) >= 1 and s) or None
        ),
        6 * MINUTE,
    )
    assert found["progress"]["attempt"] == 1
    assert found["failedPods"] == 0
    reached = found["progress"]["step"]

    before = wait_until(
        "another step is completed", lambda: step(kubectl, name) > reached and step(kubectl, name), 6 * MINUTE
    )
    for process in processes_with("-m rft_trainer --config", uid=TRAINER_UID):
        os.kill(process, signal.SIGKILL)
    found = wait_until(
        "a second attempt completes a step", lambda: _second_attempt(status(kubectl, name)), 10 * MINUTE
    )
    assert kubectl.get("job", found["jobName"])["status"]["failed"] == 1
    assert found["failedPods"] == 1
    assert found["progress"]["resumedFromStep"] >= before - interval
    assert found["progress"]["resumedFromStep"] > 0

    found = wait_until("the job ends", lambda: ended(kubectl, name), 12 * MINUTE)
    assert found["phase"] == "Succeeded", [found["message"], found["conditions"]]
    assert [point["step"] for point in found["reward"]["history"]] == list(range(1, steps + 1))
    # The grader's errors affect only its own score.
    assert found["reward"]["graders"]["own-code"] > 0
    assert found["usage"]["graderErrors"]["own-code"] > 0


def _second_attempt(found: Object) -> Object | None:
    progress = found.get("progress", {})
    return found if progress.get("attempt") == 2 and progress.get("stage") == "training" else None
