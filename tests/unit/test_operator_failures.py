"""The ordered checks that find the reason why a pod failed or does not start."""

from dataclasses import replace

import pytest

from rft_api.status import Plan, Progress, RunStatus
from rft_operator.failures import (
    CHAIN,
    EVICTIONS,
    STOPS_WITHOUT_STEP,
    classify,
    hindrance,
    stopped_too_often,
)
from rft_operator.observe import Pod, Terminated, Waiting, pod
from rft_run.report import Ending, ProgressReport

POD = Pod("p", "u", "2026-11-22T18:00:00Z", phase="Failed")
PLAN = Plan(memory="6Gi")


def ended(code: int, reason: str = "Error", message: str = "") -> Pod:
    return replace(POD, trainer=Terminated(code, reason, message))


@pytest.mark.parametrize(
    ("failed", "reason", "counted", "permanent"),
    [
        (ended(10), "ConfigurationError", True, True),
        (ended(11), "DataError", True, True),
        (ended(12), "GraderError", True, True),
        (ended(13), "OutOfMemory", True, False),
        (ended(137, "OOMKilled"), "OutOfMemory", True, False),
        (ended(14), "SamplerMismatch", True, True),
        (ended(20), "VolumeError", True, False),
        (ended(21), "TrainerFailed", True, False),
        (ended(75), "Retrying", False, False),
        (ended(76), "Retrying", False, False),
        (ended(1), "TrainerFailed", True, False),
        (ended(137), "TrainerFailed", True, False),
        (replace(ended(137), disrupted=True), "Retrying", False, False),
        (replace(ended(143), deleting=True), "Retrying", False, False),
        (replace(POD, deleting=True), "Retrying", False, False),
        (replace(ended(1), deleting=True), "TrainerFailed", True, False),
        (replace(POD, reason="Evicted", message="low on memory"), "Retrying", False, False),
        (
            replace(
                POD, reason="Evicted", message="Pod ephemeral local storage usage exceeds the total limit."
            ),
            "VolumeError",
            True,
            False,
        ),
        (replace(POD, reason="NodeLost"), "Retrying", False, False),
        (replace(ended(0), grader=Terminated(137, "OOMKilled")), "GraderError", True, False),
        (POD, "TrainerFailed", True, False),
    ],
)
def test_a_failure_is_classified(failed: Pod, reason: str, counted: bool, permanent: bool) -> None:
    failure = classify(failed, PLAN)
    assert (failure.reason, failure.counted, failure.permanent) == (reason, counted, permanent)
    assert failure.message


def test_the_checks_are_tried_in_the_specified_order() -> None:
    assert [check.__name__ for check in CHAIN] == [
        "configuration",
        "data",
        "user_code",
        "sampler_mismatch",
        "out_of_memory",
        "disk_exceeded",
        "preempted_or_lost",
        "volume",
        "grader_container",
        "unknown",
    ]


def test_the_trainers_report_is_the_message() -> None:
    ending = Ending(exit_code=11, reason="DataError", message="line 7: no messages")
    report = ProgressReport(attempt="u", sequence=1, run=RunStatus(), ending=ending)
    assert classify(replace(ended(11), report=report), None).message == "line 7: no messages"


def test_a_plain_termination_message_is_the_message_too() -> None:
    assert "Traceback" in classify(ended(1, message="Traceback: no luck"), None).message


def test_out_of_memory_names_the_plans_minimum_memory() -> None:
    message = classify(ended(137, "OOMKilled"), Plan(memory="3Gi", least_memory="4096Mi")).message
    assert "of 3Gi (the plan needs at least 4096Mi)" in message
    assert "spec.training.maxContextLength" in message


def test_out_of_memory_names_the_limit_and_the_fields_to_change() -> None:
    message = classify(ended(137, "OOMKilled"), PLAN).message
    assert "6Gi" in message
    assert "spec.resources.memory" in message


def test_the_advice_on_memory_is_not_repeated_if_the_trainer_gave_it() -> None:
    said = "the kernel ended the sampler: raise spec.resources.memory"
    assert classify(ended(13, message=said), PLAN).message == said


@pytest.mark.parametrize(
    ("waiting", "reason"),
    [
        (replace(POD, unschedulable="0/1 nodes are available"), "Unschedulable"),
        (replace(POD, waiting=Waiting("ImagePullBackOff", "back-off")), "ImagePull"),
        (replace(POD, waiting=Waiting("ErrImageNeverPull", "not present")), "ImagePull"),
        (replace(POD, waiting=Waiting("SignatureValidationFailed", "no signature")), "ImagePull"),
        (replace(POD, waiting=Waiting("CreateContainerConfigError", "secret")), "CannotStart"),
        (replace(POD, waiting=Waiting("PostStartHookError", "a reason that no list has")), "CannotStart"),
    ],
)
def test_the_reason_why_a_pod_does_not_start_is_found(waiting: Pod, reason: str) -> None:
    found = hindrance(waiting)
    assert found is not None
    assert found.reason == reason
    assert found.message


def test_a_termination_message_that_is_not_a_report_is_plain_text() -> None:
    raw = {
        "metadata": {"name": "p", "uid": "u"},
        "status": {
            "phase": "Failed",
            "containerStatuses": [
                {"name": "trainer", "state": {"terminated": {"exitCode": 1, "message": "{broken"}}}
            ],
        },
    }
    seen = pod(raw)
    assert seen.report is None
    assert classify(seen, None).message == "{broken"


def evicted(message: str) -> Pod:
    return replace(POD, reason="Evicted", message=message)


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("The node was low on resource: memory.", "spec.resources.memory"),
        ("The node was low on resource: ephemeral-storage.", "spec.storage"),
        ("The node had condition: [DiskPressure].", "spec.resources.nodeSelector"),
    ],
)
def test_evictions_end_a_run_with_what_to_change(message: str, advice: str) -> None:
    assert stopped_too_often([evicted(message)] * (EVICTIONS - 1), PLAN) is None
    failure = stopped_too_often([evicted(message)] * EVICTIONS, PLAN)
    assert failure is not None
    assert failure.reason == "Evicted"
    assert failure.message.startswith(f"Evicted {EVICTIONS} times; the last time: {message}")
    assert advice in failure.message


def stopped_at(step: int, resumed_from: int) -> Pod:
    """Return a preempted pod. Its run resumed from step ``resumed_from`` and reached step ``step``."""
    ending = Ending(exit_code=75, reason="Retrying", message="stopped by SIGTERM")
    run = RunStatus(progress=Progress(stage="training", step=step, updated_at="2026-11-22T18:00:00Z"))
    report = ProgressReport(attempt="u", sequence=1, resumed_from_step=resumed_from, run=run, ending=ending)
    return replace(ended(75), report=report)


@pytest.mark.parametrize(
    "pod", [replace(POD, reason="NodeLost"), stopped_at(4, 4)], ids=["silent", "no step"]
)
def test_pods_that_are_always_stopped_before_a_step_end_a_run(pod: Pod) -> None:
    assert stopped_too_often([pod] * (STOPS_WITHOUT_STEP - 1), PLAN) is None
    failure = stopped_too_often([pod] * STOPS_WITHOUT_STEP, PLAN)
    assert failure is not None
    assert failure.reason == "Interrupted"
    assert f"Stopped {STOPS_WITHOUT_STEP} times in a row" in failure.message


def test_a_run_that_makes_steps_may_be_preempted_for_ever() -> None:
    assert stopped_too_often([stopped_at(step + 1, step) for step in range(200)], PLAN) is None
    some = [replace(POD, reason="NodeLost")] * (STOPS_WITHOUT_STEP - 1)
    assert stopped_too_often([*some, stopped_at(5, 4), *some], PLAN) is None
