"""This operator reads, resumes and reports a job that an earlier operator started.

``tests/stored/c5ea54e/cluster`` has the objects that the operator of that commit created on an API server of
Kubernetes 1.36, and the reports that the trainer of that commit sent. The objects belong to one job, the
reports to another run.
"""

import json
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rft_api.validation import parse
from rft_operator.decision import ChildKind, Decision
from rft_operator.objects.names import owner_of
from rft_operator.observe import Observed, RawState, Received, observe
from rft_operator.reconcile import reconcile
from rft_run.config import read_run_config
from rft_run.report import ProgressReport

STORED = Path(__file__).parents[1] / "stored" / "c5ea54e" / "cluster"
NOW = datetime(2026, 11, 29, 5, 16, tzinfo=UTC)


def stored(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((STORED / f"{name}.json").read_text(encoding="utf-8"))
    return found


def report(name: str) -> ProgressReport:
    return ProgressReport.model_validate_json(
        (STORED / f"{name}.json").read_text(), by_alias=True, by_name=False
    )


def state(
    *, suspended: bool = False, phase: str = "Pending", received: ProgressReport | None = None
) -> tuple[dict[str, Any], Observed]:
    """Return the stored RFTJob and its state: with a pod of this phase, or ``suspended`` without a pod."""
    document, job, pod = stored("rftjob"), stored("job"), stored("pod")
    pod["status"]["phase"] = phase
    if phase == "Running":
        pod["spec"]["nodeName"] = "node"
        pod["status"]["conditions"] = [{"type": "PodScheduled", "status": "True"}]
    uid, created = pod["metadata"]["uid"], pod["metadata"]["creationTimestamp"]
    last = None
    if received is not None:
        last = Received(received.model_copy(update={"attempt": uid}), uid, created)
    raw = RawState(
        job=None if suspended else job, config=stored("configmap"), pods=() if suspended else (pod,)
    )
    return document, observe(owner_of(document), raw, None, last)


def decided(document: dict[str, Any], observed: Observed) -> Decision:
    return reconcile(deepcopy(document), observed, NOW)


def test_the_snapshot_is_read_with_its_plan() -> None:
    document, observed = state()
    assert observed.snapshot is not None
    assert observed.snapshot.job.uid == document["metadata"]["uid"]
    assert observed.snapshot.spec == parse(document).spec
    assert observed.snapshot.plan is not None
    assert observed.snapshot.plan.dtype is None, "the earlier release stored no dtype in its plans"
    again = read_run_config(stored("configmap")["data"]["run.json"])
    assert again == observed.snapshot


def test_a_job_that_waits_for_its_pod_goes_on_waiting_for_the_same_one() -> None:
    decision = decided(*state())
    assert decision.status["phase"] == "Pending"
    assert not decision.acts, "the operator must not replace or change the Job and the ConfigMap"


def test_a_suspended_job_is_resumed_with_its_snapshot() -> None:
    document, observed = state(suspended=True)
    document["status"]["phase"] = "Suspended"
    decision = decided(document, observed)
    assert decision.ensure == (ChildKind.JOB,), "the operator must not replace the ConfigMap"
    assert observed.snapshot is not None
    assert decision.plan == observed.snapshot.plan


@pytest.mark.parametrize("name", ["report-training", "report-ended", "termination"])
def test_a_report_of_its_trainer_becomes_the_status(name: str) -> None:
    sent = report(name)
    decision = decided(*state(phase="Running", received=sent))
    assert sent.run.reward is not None
    assert decision.status["progress"]["step"] == sent.run.progress.step
    assert decision.status["reward"]["history"] == [point.dump() for point in sent.run.reward.history]
    assert decision.status["evaluation"]["rows"] == 32
    assert decision.status["phase"] == "Running"


def test_a_run_that_its_trainer_reported_as_complete_succeeds() -> None:
    document, observed = state(phase="Succeeded", received=report("report-ended"))
    child = observed.child
    assert child is not None
    decision = decided(document, replace(observed, child=replace(child, complete=True)))
    assert decision.status["phase"] == "Succeeded"
    assert decision.status["output"]["adapter"] == "@FOLDER@/whole/adapter"
