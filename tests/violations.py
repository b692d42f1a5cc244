"""For each rule of ``rft_api.rules``, a spec that breaks only this rule."""

from typing import Any, NamedTuple


class Violation(NamedTuple):
    """A spec that breaks one rule, with the field that the error message must name."""

    spec: dict[str, Any]
    path: str
    """The field that the error message must name."""


GRADER = {"name": "right", "numeric": {}}
ENVIRONMENT = {"python": {"inline": "class Environment: ..."}}
TWO_PROMPTS = {"uri": "./a", "columns": {"prompt": "question", "messages": "chat"}}
APPARMOR = "container.apparmor.security.beta.kubernetes.io"
TWO_SOURCES = {"uri": "./a", "configMap": {"name": "b"}}

VIOLATIONS: dict[str, tuple[Violation, ...]] = {
    "dataset_has_one_source": (
        Violation({"dataset": TWO_SOURCES}, "spec.dataset"),
        Violation({"evaluation": {"dataset": TWO_SOURCES}}, "spec.evaluation.dataset"),
    ),
    "columns_name_one_prompt": (
        Violation({"dataset": TWO_PROMPTS}, "spec.dataset.columns"),
        Violation({"evaluation": {"dataset": TWO_PROMPTS}}, "spec.evaluation.dataset.columns"),
    ),
    "storage_has_one_kind": (Violation({"storage": {}}, "spec.storage"),),
    "model_cache_has_one_claim": (
        Violation({"model": {"name": "org/model", "cache": {}}}, "spec.model.cache"),
    ),
    "output_has_one_kind": (
        Violation({"output": {"hub": {"repository": "a/b"}, "s3": {"uri": "s3://bucket/a"}}}, "spec.output"),
    ),
    "best_output_needs_an_evaluation": (
        Violation(
            {"output": {"hub": {"repository": "a/b"}, "adapter": "best"}, "evaluation": {"fraction": 0}},
            "spec.output.adapter",
        ),
    ),
    "grader_has_one_kind": (Violation({"graders": [{"name": "right"}]}, "spec.graders[0]"),),
    "python_grader_has_one_source": (
        Violation({"graders": [{"name": "right", "python": {}}]}, "spec.graders[0].python"),
    ),
    "grader_names_are_unique": (Violation({"graders": [GRADER, GRADER]}, "spec.graders[1].name"),),
    "grader_scale_rises": (
        Violation({"graders": [{**GRADER, "scale": {"min": 1, "max": 1}}]}, "spec.graders[0].scale"),
    ),
    "a_grader_makes_the_reward": (Violation({"graders": [{**GRADER, "weight": 0}]}, "spec.graders"),),
    "environment_has_one_source": (Violation({"environment": {"python": {}}}, "spec.environment.python"),),
    "environment_scale_rises": (
        Violation({"environment": {**ENVIRONMENT, "scale": {"min": 1, "max": 1}}}, "spec.environment.scale"),
    ),
    "no_grader_has_the_environments_name": (
        Violation(
            {"environment": ENVIRONMENT, "graders": [{**GRADER, "name": "environment"}]},
            "spec.graders[0].name",
        ),
    ),
    "held_out_reward_needs_an_evaluation": (
        Violation({"evaluation": {"fraction": 0, "everySteps": 5}}, "spec.evaluation.everySteps"),
        Violation({"evaluation": {"fraction": 0}, "stop": {"targetReward": 0.9}}, "spec.stop.targetReward"),
        Violation({"evaluation": {"fraction": 0}, "stop": {"patience": 3}}, "spec.stop.patience"),
    ),
    "canary_stop_has_a_canary": (Violation({"stop": {"canary": 0.1}}, "spec.stop.canary"),),
    "marker_goes_with_marker_extraction": (
        Violation(
            {"graders": [{"name": "right", "numeric": {"extract": "marker"}}]}, "spec.graders[0].numeric"
        ),
    ),
    "completion_fits_context": (
        Violation(
            {"training": {"maxContextLength": 2048}, "sampling": {"maxTokens": 2048}},
            "spec.sampling.maxTokens",
        ),
    ),
    "context_fits_batch": (
        Violation(
            {"training": {"maxContextLength": 40000, "batchSizeTokens": 32768}},
            "spec.training.maxContextLength",
        ),
    ),
    "completion_fits_default_context": (
        Violation({"training": {"batchSizeTokens": 2048}}, "spec.sampling.maxTokens"),
    ),
    "variable_has_one_value": (
        Violation(
            {"template": {"env": [{"name": "A", "value": "b", "secretRef": {"name": "s", "key": "k"}}]}},
            "spec.template.env[0]",
        ),
    ),
    "variable_has_one_source": (
        Violation({"template": {"env": [{"name": "A", "valueFrom": {}}]}}, "spec.template.env[0].valueFrom"),
    ),
    "resource_claim_has_one_source": (
        Violation({"template": {"resourceClaims": [{"name": "gpus"}]}}, "spec.template.resourceClaims[0]"),
    ),
    "gpu_claim_is_a_claim_of_the_pod": (
        Violation({"resources": {"gpuClaim": "gpus"}}, "spec.resources.gpuClaim"),
    ),
    "annotations_widen_no_rights": (
        Violation(
            {"template": {"annotations": {f"{APPARMOR}/trainer": "unconfined"}}},
            f"spec.template.annotations.{APPARMOR}/trainer",
        ),
    ),
    "extra_volume_has_one_source": (
        Violation({"template": {"volumes": [{"name": "m", "mountPath": "/m"}]}}, "spec.template.volumes[0]"),
    ),
    "suspending_needs_storage": (Violation({"suspend": True}, "spec.suspend"),),
    "deadline_is_in_the_calendar": (
        Violation({"stop": {"deadline": "2027-02-29T18:00:00Z"}}, "spec.stop.deadline"),
    ),
    "deterministic_runs_are_in_float32": (
        Violation({"training": {"deterministic": True, "cpuDtype": "bfloat16"}}, "spec.training.cpuDtype"),
    ),
}
"""Violations of each rule.

If a rule has several CEL texts, there is one violation for each text, in the order of the texts.
"""
