"""An RFTJob that the operator of one release begins, and that of another one continues.

The API server and the Job controller are real. The trainer is not: the status of its pod and its reports are
written as the first release's trainer would.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

from rft_operator.cluster import connect
from tests.integration.operator_support import (
    CONFIG_MAPS,
    RFTJOBS,
    Api,
    Object,
    Operator,
    Run,
    create_namespace,
    install_crd,
)
from tests.skew.releases import Release
from tests.waiting import wait_until

SECONDS = 60.0
SPEC: Object = {
    "model": {"name": "HuggingFaceTB/SmolLM2-135M-Instruct"},
    "dataset": {"configMap": {"name": "rows"}},
    "graders": [{"name": "right", "numeric": {}}],
    "training": {"batchSizeTokens": 1024, "maxContextLength": 256},
    "sampling": {"maxTokens": 64},
    "storage": {"persistentVolumeClaim": {"claimName": "runs"}},
    "resources": {"gpus": 0},
}
# In older releases the class ProgressReport is in another module. Arguments of the script: the attempt, the
# number of the report, and "end" for the last report.
REPORT = """
import json, sys
try:
    from rft_run.report import Ending, ProgressReport
except ImportError:
    from rft_api.report import Ending, ProgressReport
from rft_api.status import RunStatus
attempt, number, end = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "end"
stage = "finished" if end else "training"
progress = {"step": number, "totalSteps": 4, "stage": stage, "percent": 25.0 * number}
run = RunStatus.model_validate({"progress": progress})
ending = {"ending": Ending(exit_code=0, reason="Completed", message="1 epoch trained")} if end else {}
report = ProgressReport(attempt=attempt, sequence=number, run=run, **ending)
print(json.dumps(report.termination_message() if end else report.dump()))
"""


def prepared(kubeconfig: Path) -> Api:
    """Create a namespace. Return an ``Api`` for this namespace."""
    api = Api(connect(str(kubeconfig)), f"rft-skew-{uuid4().hex[:8]}")
    create_namespace(api)
    return api


def install(release: Release, api: Api) -> None:
    """Install the CRD of a release. Wait until the API server adds the defaults of this CRD to an RFTJob."""
    crd = install_crd(api, release.crd)
    (version,) = crd["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    fields = spec["properties"]["training"]["properties"]
    wanted = {name for name, field in fields.items() if "default" in field} | SPEC["training"].keys()

    def adds_its_defaults() -> bool:
        probe = api.create(f"{RFTJOBS}?dryRun=All", _job())
        return bool(probe["spec"]["training"].keys() == wanted)

    wait_until(f"the CRD of {release.name} is served", adds_its_defaults)


def continued(writer: Release, reader: Release, api: Api, kubeconfig: Path, log: Path) -> None:
    """Let ``writer`` begin a job, and ``reader`` continue it to its success.

    Each operator has its own CRD, as after ``helm upgrade`` and ``helm rollback``. The trainer has the
    release of ``writer``. ``reader`` must know the job's child and its progress, accept reports, and read
    the last report from the pod's termination message.

    Raises:
        AssertionError: the job does not continue, or does not succeed.
    """
    first = _operator(writer, api, kubeconfig, log)
    second = _operator(reader, api, kubeconfig, log)
    install(writer, api)
    first.start()
    run = _submitted(api)
    try:
        pod = wait_until("the pod of the first operator", run.pod, SECONDS)
        run.start_pod(pod)
        _push(first, run, pod, _report(writer, pod, 1))
        run.wait_for_phase("Running", SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}; {_shown(run)}") from error
    finally:
        first.stop()
    install(reader, api)
    second.start()
    try:
        _push(second, run, pod, _report(writer, pod, 2))
        wait_until(
            "the second operator writes the progress", lambda: run.status["progress"]["step"] == 2, SECONDS
        )
        assert run.status["phase"] == "Running", run.status["message"]
        assert [each["metadata"]["uid"] for each in run.pods()] == [pod["metadata"]["uid"]]
        run.end_pod(pod, 0, json.dumps(_report(writer, pod, 3, "end")))
        wait_until("the job ends", lambda: run.status["phase"] in ("Succeeded", "Failed"), SECONDS)
        assert run.status["phase"] == "Succeeded", "the job failed"
        assert run.status["progress"]["step"] == 3
        wait_until("a new job gets a child", _submitted(api).child, SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}; {_shown(run)}") from error
    finally:
        second.stop()


def _operator(release: Release, api: Api, kubeconfig: Path, log: Path) -> Operator:
    return Operator(kubeconfig, api.namespace, log, PYTHONPATH=release.python_path)


def _shown(run: Run) -> str:
    """Return the phase and the message of an RFTJob."""
    return f"phase {run.status.get('phase')}: {run.status.get('message')}"


def _job() -> Object:
    return {
        "apiVersion": "rft.dev/v1alpha1",
        "kind": "RFTJob",
        "metadata": {"name": f"skew-{uuid4().hex[:6]}"},
        "spec": SPEC,
    }


def _submitted(api: Api) -> Run:
    return Run(api, api.create(RFTJOBS, _job()))


def _report(release: Release, pod: Object, number: int, end: str = "") -> Any:
    words = [sys.executable, "-c", REPORT, pod["metadata"]["uid"], str(number), end]
    done = subprocess.run(words, env=release.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the report of {release.name}: {done.stderr[-1000:]}"
    return json.loads(done.stdout)


def _push(operator: Operator, run: Run, pod: Object, report: Object) -> None:
    def ca() -> str | None:
        found = run.api.find(CONFIG_MAPS, f"{run.child_name}-ca")
        return found["data"]["ca.crt"] if found is not None else None

    authority = wait_until("the CA of the ingest", ca, SECONDS)
    content = json.dumps(report).encode()
    wait_until(
        "the ingest accepts the report",
        lambda: operator.push(authority, run.token(pod), content) == 200,
        SECONDS,
        poll=1.0,
    )
