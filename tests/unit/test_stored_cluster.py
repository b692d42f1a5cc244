"""The operator reads and resumes a job that an earlier release started, and writes its status.

The folder ``tests/stored/c5ea54e/cluster`` has two kinds of files, both made with commit c5ea54e:

- the objects of one job, which the operator created on an API server of Kubernetes 1.36
- reports of another run, which the trainer sent
"""

import json
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rft_api.conditions import Reason
from rft_api.validation import parse
from rft_operator.decision import ChildKind, Decision
from rft_operator.objects.config import config_map, run_config
from rft_operator.objects.names import owner_of
from rft_operator.observe import Observed, RawState, Received, observe, pod
from rft_operator.reconcile import reconcile
from rft_run import wire
from rft_run.config import CONFIG_FILE, read_run_config
from rft_run.report import ProgressReport

STORED = Path(__file__).parents[1] / "stored" / "c5ea54e" / "cluster"
NOW = datetime(2026, 11, 29, 5, 16, tzinfo=UTC)


def stored(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((STORED / f"{name}.json").read_text(encoding="utf-8"))
    return found


def report(name: str) -> ProgressReport:
    return wire.read(ProgressReport, (STORED / f"{name}.json").read_text())


NOVELTY = {"novelty": {"ofANewer": ["release"]}}


def of_a_newer_release(value: dict[str, Any], *paths: str) -> str:
    """Return the JSON of an object with an additional field that this release does not know.

    A newer release might write such a field. It is added to the object itself, and to the objects at
    ``paths``, such as ``spec.training``.
    """
    newer = deepcopy(value) | NOVELTY
    for path in paths:
        found = newer
        for key in path.split("."):
            found = found[key]
        found |= NOVELTY
    return json.dumps(newer)


def with_snapshot(text: str, config: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a copy of the ConfigMap ``config`` (default: the stored one), with ``text`` as its snapshot.

    The snapshot has the spec and the plan with which the run was started.
    """
    config = config or stored("configmap")
    return config | {"data": config["data"] | {CONFIG_FILE: text}}


def at_rest(config: dict[str, Any]) -> tuple[dict[str, Any], Observed]:
    """Return the stored RFTJob in the phase Suspended, and its observed state.

    Its only child object is the ConfigMap ``config``.
    """
    document = stored("rftjob")
    document["status"]["phase"] = "Suspended"
    return document, observe(owner_of(document), RawState(config=config), None, None)


def state(
    *, suspended: bool = False, phase: str = "Pending", received: ProgressReport | None = None
) -> tuple[dict[str, Any], Observed]:
    """Return the stored RFTJob and the state that the operator observes for it.

    - ``suspended``: whether the run is suspended. Then the state has neither a Job nor a pod.
    - ``phase``: the phase of the pod.
    - ``received``: the newest report of the pod's trainer. None: there was no report.
    """
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


SNAPSHOT_OBJECTS = ("job", "spec", "spec.training", "spec.sampling", "effective", "plan")


def test_a_snapshot_of_a_newer_release_is_read_without_what_is_not_known() -> None:
    document, observed = state()
    assert observed.snapshot is not None
    assert observed.snapshot.plan is not None
    owner = owner_of(document)
    today = config_map(owner, run_config(owner, observed.snapshot.spec, observed.snapshot.plan, None))
    for config in (stored("configmap"), today):
        body = json.loads(config["data"][CONFIG_FILE])
        newer = of_a_newer_release(body, *SNAPSHOT_OBJECTS)
        assert read_run_config(newer) == read_run_config(json.dumps(body))
        owned = with_snapshot(newer, config)
        decision = decided(*at_rest(owned))
        assert decision.ensure == (ChildKind.JOB,), "the run must keep its snapshot"


@pytest.mark.parametrize("name", ["report-training", "report-ended", "termination"])
def test_a_report_of_a_newer_release_is_read_without_what_is_not_known(name: str) -> None:
    body = stored(name)
    newer = of_a_newer_release(body, "run", "run.progress", "run.reward", "run.evaluation")
    assert wire.read(ProgressReport, newer) == report(name)
    ended = stored("pod")
    ended["status"] = {
        "phase": "Failed",
        "containerStatuses": [
            {"name": "trainer", "state": {"terminated": {"exitCode": 1, "message": newer}}},
        ],
    }
    assert pod(ended).report == report(name)


def unreadable() -> dict[str, Any]:
    """Return the stored ConfigMap with a snapshot of a version that only a newer release can read."""
    return with_snapshot(json.dumps(json.loads(stored("configmap")["data"][CONFIG_FILE]) | {"version": 2}))


def test_a_snapshot_that_cannot_be_read_is_made_anew_before_the_next_job() -> None:
    document, observed = at_rest(unreadable())
    assert observed.snapshot is None
    decision = decided(document, observed)
    assert decision.ensure == (ChildKind.CONFIG, ChildKind.JOB)
    assert decision.spec == parse(document).spec


def test_a_snapshot_that_breaks_a_rule_of_this_release_is_made_anew_too() -> None:
    """The trainer of this release would refuse a snapshot that breaks a rule, and the run would end."""
    body = json.loads(stored("configmap")["data"][CONFIG_FILE])
    body["spec"]["graders"] = [body["spec"]["graders"][0], body["spec"]["graders"][0]]
    document, observed = at_rest(with_snapshot(json.dumps(body)))
    decision = decided(document, observed)
    assert decision.ensure == (ChildKind.CONFIG, ChildKind.JOB)


def test_a_job_that_runs_keeps_a_snapshot_that_cannot_be_read() -> None:
    document, _ = state()
    raw = RawState(job=stored("job"), config=unreadable(), pods=(stored("pod"),))
    assert not decided(document, observe(owner_of(document), raw, None, None)).acts


def test_without_a_readable_snapshot_an_invalid_spec_is_refused_before_a_job_is_made() -> None:
    document, observed = at_rest(unreadable())
    document["spec"]["training"] = {"loraRank": 0}
    decision = decided(document, observed)
    assert not decision.acts
    assert decision.status["phase"] == "Invalid"
    conditions = {each["type"]: each for each in decision.status["conditions"]}
    assert conditions["Accepted"]["reason"] == Reason.INVALID_SPEC
    assert "loraRank" in conditions["Accepted"]["message"]
    assert "completionTime" not in decision.status, "the job starts once its spec is corrected"
