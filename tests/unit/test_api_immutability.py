"""Which fields of a spec may change after a job has started. One function decides this for all programs."""

from typing import Any

import pytest

from rft_api.immutability import CEL, NEVER, ONLY_SUSPENDED, problems
from rft_api.job import MUTABLE_AFTER_START, RFTJobSpec
from rft_api.validation import parse
from tests.manifests import manifest

CLAIM = {"storage": {"persistentVolumeClaim": {"claimName": "runs"}}}
RUNNING = {"startTime": "2026-11-22T18:00:00Z", "phase": "Running"}
SUSPENDED = {**RUNNING, "phase": "Suspended"}


def spec(**changes: Any) -> RFTJobSpec:
    return parse(manifest(**CLAIM, **changes)).spec


def paths(old: RFTJobSpec, new: RFTJobSpec, status: dict[str, Any]) -> list[str]:
    return [problem.path for problem in problems(old, new, status)]


def test_before_the_start_everything_may_change() -> None:
    new = spec(model={"name": "org/other"}, training={"learningRate": 2e-4})
    assert problems(spec(), new, {}) == []
    assert problems(spec(), new, {"phase": "Failed"}) == []


def test_after_the_start_each_change_is_reported_with_its_field() -> None:
    new = spec(
        training={"learningRate": 2e-4, "maxContextLength": 4096},
        graders=[{"name": "right", "numeric": {"tolerance": 0.1}}, {"name": "more", "math": {}}],
    )
    assert paths(spec(), new, RUNNING) == [
        "spec.graders.right.numeric.tolerance",
        "spec.graders.more",
        "spec.training.learningRate",
        "spec.training.maxContextLength",
    ]
    assert {problem.message for problem in problems(spec(), new, RUNNING)} == {NEVER}


def test_a_removed_field_is_a_change() -> None:
    assert paths(spec(tracking={"tensorboard": {}}), spec(), RUNNING) == ["spec.tracking"]


def test_the_order_of_a_list_of_named_items_does_not_matter() -> None:
    one, two = {"name": "a", "math": {}}, {"name": "b", "math": {}}
    assert problems(spec(graders=[one, two]), spec(graders=[two, one]), RUNNING) == []


@pytest.mark.parametrize(
    "change", [{"stop": {"maxSteps": 3}}, {"suspend": True}, {"cancel": True}, {"ttlSecondsAfterFinished": 9}]
)
def test_fields_that_control_a_run_may_change_at_any_time(change: dict[str, Any]) -> None:
    assert problems(spec(), spec(**change), RUNNING) == []


PLACEMENT = {"resources": {"gpus": 2}, "template": {"labels": {"team": "a"}}}


def test_resources_and_template_may_change_only_while_no_pod_runs() -> None:
    new, suspended = spec(**PLACEMENT), spec(**PLACEMENT, suspend=True)
    assert paths(spec(), new, RUNNING) == ["spec.resources", "spec.template"]
    assert {problem.message for problem in problems(spec(), new, RUNNING)} == {ONLY_SUSPENDED}
    assert paths(spec(suspend=True), suspended, RUNNING), (
        "the change must be refused: spec.suspend is true, but the pod still runs"
    )
    assert problems(spec(suspend=True), suspended, SUSPENDED) == []
    assert problems(spec(suspend=True), new, SUSPENDED) == [], (
        "an update that sets spec.suspend to false may change resources and template too"
    )
    assert paths(spec(), new, SUSPENDED), (
        "the change must be refused: spec.suspend is false, only the phase is still Suspended"
    )


def test_every_immutable_field_has_a_rule_in_cel() -> None:
    steering = {RFTJobSpec.model_fields[name].alias for name in MUTABLE_AFTER_START}
    fields = {info.alias or name for name, info in RFTJobSpec.model_fields.items()} - steering
    assert {text.message.split()[0].removeprefix("spec.") for text in CEL} == fields
    assert {text.where for text in CEL} == {""}
