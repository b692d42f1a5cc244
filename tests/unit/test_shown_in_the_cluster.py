"""Secrets and control characters of a run or a pod never get into a status, an Event or the operator's log.

The tests begin with what the API server or a trainer sends, and check what the operator then writes.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from rft_operator.cluster import ClusterError, _error, _said
from rft_operator.controller import NotMade
from rft_operator.decision import Decision
from rft_operator.ingest.identity import Caller
from rft_operator.ingest.reports import Reports
from rft_operator.kueue import workload
from rft_operator.log_lines import LineFormatter
from rft_operator.logs import last_lines
from rft_operator.objects.names import owner_of
from rft_operator.observe import Observed, child, pod
from rft_operator.recorder import event
from rft_operator.webhook.logs import JsonFormatter
from rft_operator.webhook.review import REVIEW, review
from rft_run.report import ProgressReport
from tests.unit.reconcile_support import CHILD, NOW, POD, STARTED, once, rftjob
from tests.unit.shown_support import ESCAPES, ORDINARY, PASSWORD, SECRETS, Sample, texts_of

Json = dict[str, Any]
SAMPLES = (*SECRETS, *ESCAPES)


def written(decision: Decision) -> str:
    """Return everything that the operator writes for a decision: the status and the Events."""
    owner = owner_of(rftjob())
    events = [event(owner, note, NOW) for note in decision.notes]
    assert events, "a new reason must give an Event"
    return "\n".join(texts_of([decision.status, events]))


def leaked(write: Callable[[str], str], samples: tuple[Sample, ...] = SAMPLES) -> dict[str, list[str]]:
    """Return the parts of each sample that ``write`` should hide, but returns.

    A key of the result is the name of a sample. Samples without such parts are left out.
    """
    found = {}
    for sample in samples:
        said = write(sample.text)
        if parts := [part for part in sample.hidden if part in said]:
            found[sample.name] = parts
    return found


def raw_pod(**status: Any) -> Json:
    owners = [{"kind": "Job", "uid": CHILD.uid, "controller": True, "name": "x", "apiVersion": "batch/v1"}]
    metadata = {"name": POD.name, "uid": POD.uid, "creationTimestamp": POD.created, "ownerReferences": owners}
    return {"metadata": metadata, "spec": {"nodeName": "node-1"}, "status": status}


def of_pod(**status: Any) -> Observed:
    return replace(STARTED, pods=(pod(raw_pod(**status)),))


def unplaced(text: str) -> Observed:
    """Return the state of a job whose pod has no node. ``text`` is the scheduler's message."""
    waiting = raw_pod(conditions=[condition("PodScheduled", "False", "Unschedulable", text)])
    waiting["spec"].pop("nodeName")
    return replace(STARTED, pods=(pod(waiting),), nodes=())


def ended(message: str, code: int) -> Json:
    terminated = {"exitCode": code, "reason": "Error", "message": message}
    return {
        "phase": "Failed",
        "containerStatuses": [{"name": "trainer", "state": {"terminated": terminated}}],
    }


def waits(reason: str, message: str) -> Json:
    waiting = {"reason": reason, "message": message}
    return {"phase": "Pending", "containerStatuses": [{"name": "trainer", "state": {"waiting": waiting}}]}


def report(text: str, **ending: Any) -> Json:
    """Return a trainer's report that has ``text`` in each text field, and as the name of a grader.

    ``ending`` are further fields of the report's ``ending``. Without them the report has no ``ending``.
    """
    advice = {"rule": text, "parameter": text, "message": text}
    return {
        "attempt": POD.uid,
        "sequence": 7,
        "run": {
            "progress": {"step": 3, "stage": "training", "updatedAt": "2026-11-22T17:59:00Z"},
            "reward": {
                "graders": {text: 0.5},
                "history": [{"step": 1, "reward": 0.5, "graders": {text: 0.5}}],
            },
            "evaluation": {"rows": 4, "graders": {text: {"base": 0.1}}},
            "recommendations": [advice],
            "usage": {"graderErrors": {text: 3}},
            "output": {"folder": text, "adapter": text},
        },
        **({"ending": {"exitCode": 1, "reason": text, "message": text, **ending}} if ending else {}),
    }


def pushed(text: str, state: Observed, **ending: Any) -> Observed:
    """Return ``state`` after a trainer has pushed a report with ``text`` to the ingest."""
    reports = Reports()
    caller = Caller("team", "sums", "uid", POD.uid, POD.created)
    body = json.dumps(report(text, **ending))
    reports.accept(caller, ProgressReport.model_validate_json(body, by_alias=True, by_name=False))
    return replace(state, received=reports.get("uid"))


def queued(text: str, *conditions: Json, **status: Any) -> Observed:
    raw = {
        "metadata": {"name": "job-sums", "labels": {}},
        "spec": {"queueName": "team", "active": True},
        "status": {"conditions": list(conditions), **status},
    }
    return replace(STARTED, child=replace(CHILD, suspended=True), workload=workload(raw))


def condition(kind: str, status: str, reason: str, message: str) -> Json:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": "x"}


def refused(text: str) -> Observed:
    """Return the stored state of an RFTJob after the API server refused to create its Job.

    ``text`` is the reason in the refusal.
    """
    answer = json.dumps({"kind": "Status", "message": f"admission webhook denied: {text}"}).encode()
    error = _error(403, f"POST apis/batch/v1: {_said(answer)}")
    return Observed(config_exists=True, refused=str(NotMade(f"Job sums cannot be created: {error}.", error)))


def failed_job(text: str) -> Observed:
    conditions = [condition("Failed", "True", "PodFailurePolicy", text)]
    raw = {"metadata": {"uid": CHILD.uid}, "spec": {}, "status": {"conditions": conditions}}
    return replace(STARTED, child=child(raw))


def stalled(text: str) -> Observed:
    state = replace(pushed("fine", STARTED), pods=(replace(POD, created="2026-11-22T17:00:00Z"),))
    assert state.received is not None
    old = state.received.report.run.progress.model_copy(update={"updated_at": "2026-11-22T16:00:00Z"})
    run = state.received.report.run.model_copy(update={"progress": old})
    received = replace(state.received, report=state.received.report.model_copy(update={"run": run}))
    return replace(state, received=received, last_lines=last_lines(f"step 3\n{text}\n"))


PATHS: dict[str, Callable[[str], Observed]] = {
    "termination message": lambda text: of_pod(**ended(text, 1)),
    "termination message of a refused configuration": lambda text: of_pod(**ended(text, 10)),
    "termination message of a killed trainer": lambda text: of_pod(**ended(text, 137)),
    "report in a termination message": lambda text: of_pod(
        **ended(json.dumps(report(text, exitCode=11)), 11)
    ),
    "report pushed to the ingest": lambda text: replace(pushed(text, STARTED), pods=(POD,)),
    "ending pushed to the ingest": lambda text: pushed(
        text, replace(STARTED, child=replace(CHILD, complete=True)), exitCode=0, reason="MaxStepsReached"
    ),
    "message of a pod": lambda text: of_pod(phase="Failed", reason="Evicted", message=text),
    "reason of a pod": lambda text: of_pod(phase="Failed", reason=text),
    "image that cannot be pulled": lambda text: of_pod(**waits("ImagePullBackOff", text)),
    "container that cannot be made": lambda text: of_pod(**waits("CreateContainerConfigError", text)),
    "pod that is not scheduled": unplaced,
    "failed Job": failed_job,
    "refusal of the API server": refused,
    "log of a stalled trainer": stalled,
    "Workload without quota": lambda text: queued(text, condition("QuotaReserved", "False", "Pending", text)),
    "evicted Workload": lambda text: queued(text, condition("Evicted", "True", "Preempted", text)),
    "admission check": lambda text: queued(
        text, admissionChecks=[{"name": "check", "state": "Rejected", "message": text}]
    ),
}


@pytest.mark.parametrize("path", PATHS)
def test_nothing_of_it_gets_into_status_or_events(path: str) -> None:
    def write(text: str) -> str:
        return written(once(rftjob(), PATHS[path](text)))

    assert "Step 3 of 12" in write("Step 3 of 12"), "an ordinary text must be shown"
    assert leaked(write) == {}


@pytest.mark.parametrize("path", PATHS)
def test_an_ordinary_text_gets_into_the_status_as_it_is(path: str) -> None:
    text = next(each for each in ORDINARY if "maxTokens" in each)
    assert text in written(once(rftjob(), PATHS[path](text)))


def test_problems_of_a_manifest_have_no_control_characters() -> None:
    def write(text: str) -> str:
        wrong: Json = {text: {text: 1}, "training": {"loraRank": text}}
        return written(once(rftjob(**wrong), Observed()))

    assert leaked(write, ESCAPES) == {}


def test_what_an_older_version_has_written_is_mended() -> None:
    old = {
        "phase": "Succeeded",
        "message": f"password={PASSWORD}",
        "conditions": [{"type": "Complete", "status": "True"}],
    }
    status = once(rftjob(old), Observed()).status
    assert PASSWORD not in "".join(texts_of(status))
    assert once(rftjob(dict(status)), Observed()).status == status, "a cleaned status must not change again"


@pytest.mark.parametrize("path", PATHS)
def test_a_status_is_written_once(path: str) -> None:
    for sample in SAMPLES:
        state = PATHS[path](sample.text)
        first = once(rftjob(), state)
        again = once(rftjob(dict(first.status)), state)
        assert again.status == first.status, sample.name
        assert again.notes == (), sample.name


def record(message: str, *arguments: object, error: Exception | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error is not None else None
    return logging.LogRecord("rft_operator", logging.WARNING, "x.py", 1, message, arguments, info)


@pytest.mark.parametrize("formatter", [LineFormatter(), JsonFormatter()], ids=["lines", "json"])
def test_nothing_of_it_gets_into_the_operators_log(formatter: logging.Formatter) -> None:
    def write(text: str) -> str:
        error = ClusterError(500, text)
        entry = record("%s/%s: %s; the operator tries again", "team", text, error, error=error)
        entry.fields = {"name": text, "problems": [text]}
        line = formatter.format(entry)
        return "\n".join(texts_of(json.loads(line))) if line.startswith("{") else line

    assert leaked(write) == {}


def test_no_text_looks_like_a_record_of_its_own() -> None:
    lines = LineFormatter().format(
        record("refused: %s", "a\n2026-11-22 18:00 INFO rft_operator: all is well")
    )
    assert all(line.startswith("    ") for line in lines.splitlines()[1:])


@pytest.mark.parametrize("body", [b"{}", b'{"message": 3}', b"[]", b"\xff\x1b[2J", b""])
def test_any_answer_of_the_api_server_can_be_said(body: bytes) -> None:
    assert "\x1b" not in _said(body)


def test_a_secret_at_the_end_of_a_long_refusal_is_not_cut_in_two() -> None:
    token = "ghp" + "_" + "Ab1" * 12
    answer = json.dumps({"message": "x" * 480 + f" {token}"}).encode()
    assert "ghp_" not in _said(answer)


def test_a_review_answers_without_control_characters() -> None:
    for sample in ESCAPES:
        made = rftjob(graders=[{"name": sample.text, "numeric": {}}])
        made["spec"][sample.text] = 1
        request = {
            "uid": "1", "operation": "CREATE", "object": made,
            "resource": {"group": "rft.dev", "version": "v1alpha1", "resource": "rftjobs"},
        }  # fmt: skip
        said = "\n".join(texts_of(review({**REVIEW, "request": request})))
        assert not [part for part in sample.hidden if part in said], sample.name
