"""Builds RFTJobs and observed states for tests of ``reconcile``."""

from datetime import UTC, datetime
from typing import Any

from rft_api.status import Progress, RunStatus
from rft_api.validation import parse
from rft_operator.clock import rfc3339
from rft_operator.decision import Decision
from rft_operator.objects.config import run_config
from rft_operator.objects.names import owner_of
from rft_operator.observe import Child, Observed, Pod, Received
from rft_operator.reconcile import reconcile
from rft_planner.plan import plan
from rft_run.report import Ending, ProgressReport

NOW = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
UID = "5b0d2ac7-2f3b-4c3a-9f0f-6a4b7c1f2d3e"
SPEC: dict[str, Any] = {
    "model": {"name": "SmolLM2-135M"},
    "dataset": {"configMap": {"name": "rows"}},
    "graders": [{"name": "right", "numeric": {}}],
    "storage": {"persistentVolumeClaim": {"claimName": "runs"}},
    "resources": {"accelerator": {"name": "cpu"}},
}


def rftjob(status: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "rft.dev/v1alpha1",
        "kind": "RFTJob",
        "metadata": {
            "name": "sums",
            "namespace": "team",
            "uid": UID,
            "generation": 1,
            "resourceVersion": "1",
        },
        "spec": {**SPEC, **changes},
        **({"status": status} if status is not None else {}),
    }


def snapshot(document: dict[str, Any] | None = None) -> Any:
    document = document or rftjob()
    spec = parse(document).spec
    return run_config(owner_of(document), spec, plan(spec, UID), None)


CHILD = Child(uid="job-1", created="2026-11-22T17:50:00Z", has_failure_policy=True, backoff_limit=3)
STARTED = Observed(child=CHILD, snapshot=snapshot(), config_exists=True, ca_current=True)
POD = Pod("sums-x-1", "pod-1", "2026-11-22T17:50:05Z", controller="job-1", phase="Running", scheduled=True)


def report(
    pod: Pod = POD,
    step: int = 3,
    stage: str = "training",
    ending: Ending | None = None,
    at: datetime = NOW,
    attempt: int = 1,
) -> Received:
    progress = Progress.model_validate(
        {"step": step, "totalSteps": 12, "stage": stage, "updatedAt": rfc3339(at), "attempt": attempt}
    )
    extra: dict[str, Any] = {"ending": ending} if ending is not None else {}
    said = ProgressReport(attempt=pod.uid, sequence=step, run=RunStatus(progress=progress), **extra)
    return Received(said, pod.uid, pod.created)


def said(pod_uid: str, code: int, message: str) -> ProgressReport:
    ending = Ending(exit_code=code, reason="DataError", message=message)
    return ProgressReport(attempt=pod_uid, sequence=9, run=RunStatus(), ending=ending)


def once(document: dict[str, Any], state: Observed, now: datetime = NOW) -> Decision:
    return reconcile(document, state, now)
