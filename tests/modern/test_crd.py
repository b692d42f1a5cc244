"""A current API server with the CRD: the CEL rules refuse the same objects as the pydantic models."""

from typing import Any

import httpx
import pytest

from rft_api import rules
from rft_api.cel import Cel
from rft_api.immutability import NEVER, ONLY_SUSPENDED
from tests.modern.server import Server
from tests.modern.support import RFTJOBS, Object, apply, create, named, patch, started
from tests.violations import VIOLATIONS, Violation

# ``func_only``: the fixtures do not count in the time limit, because they may have to build the server.
pytestmark = [pytest.mark.modern, pytest.mark.timeout(60, func_only=True)]

TEXTS = [
    pytest.param(text, broken, id=f"{rule.name}-{text.where}")
    for rule in rules.RULES
    if rule.cel
    for text, broken in zip(rule.cel, VIOLATIONS[rule.name], strict=True)
]
CLAIM = {"persistentVolumeClaim": {"claimName": "runs"}}


def message(answer: httpx.Response) -> str:
    return str(answer.json().get("message", ""))


def test_the_crd_is_accepted_without_a_warning(installed: httpx.Response) -> None:
    assert "warning" not in installed.headers


@pytest.mark.parametrize(("text", "broken"), TEXTS)
def test_a_spec_that_breaks_a_rule_is_refused_with_the_rules_message(
    server: Server, installed: httpx.Response, text: Cel, broken: Violation
) -> None:
    answer = create(server, named(**broken.spec))
    assert answer.status_code == 422, answer.text
    assert text.message in message(answer)


VALID: list[dict[str, Any]] = [
    {},
    {"dataset": {"persistentVolumeClaim": {"claimName": "rows", "path": "rows.jsonl"}}},
    {"evaluation": {"dataset": {"configMap": {"name": "rows"}}}},
    {"storage": CLAIM, "suspend": True},
    {"storage": {"claimTemplate": {"size": "20Gi"}}},
    {"training": {"maxContextLength": 4096, "batchSizeTokens": 4096}},
    {"training": {"batchSizeTokens": 2049}},
    {"graders": [{"name": "own", "python": {"inline": "def grade(completion, row): return 1.0"}}]},
    {
        "graders": [
            {"name": "a", "numeric": {"extract": "marker", "marker": "####"}},
            {"name": "b", "exactMatch": {}, "scale": {"min": -1, "max": 0.5}},
        ]
    },
    {"template": {"volumes": [{"name": "m", "mountPath": "/m", "configMap": "models"}]}},
]


@pytest.mark.parametrize("spec", VALID)
def test_a_valid_spec_is_accepted(server: Server, installed: httpx.Response, spec: dict[str, Any]) -> None:
    answer = create(server, named(**spec))
    assert answer.status_code == 201, answer.text
    assert "warning" not in answer.headers


def test_a_duplicate_grader_name_is_refused_by_the_schema(server: Server, installed: httpx.Response) -> None:
    (broken,) = VIOLATIONS["grader_names_are_unique"]
    answer = create(server, named(**broken.spec))
    assert answer.status_code == 422
    assert "Duplicate value" in message(answer)


LATE: dict[str, Any] = {
    "model": {"name": "org/other"},
    "dataset": {"uri": "./other.jsonl"},
    "graders": [{"name": "right", "numeric": {"tolerance": 0.5}}],
    "evaluation": {"fraction": 0.2},
    "training": {"learningRate": 2e-4},
    "sampling": {"temperature": 1.0},
    "storage": {"ephemeral": None, **CLAIM},
    "checkpoint": {"everySteps": 5},
    "retry": {"limit": 1},
    "preflight": "off",
    "tracking": {"tensorboard": {}},
}


@pytest.mark.parametrize("field", LATE)
def test_immutable_fields_cannot_change_after_the_start(
    server: Server, installed: httpx.Response, field: str
) -> None:
    name = started(server)
    answer = patch(server, name, {"spec": {field: LATE[field]}})
    assert answer.status_code == 422, answer.text
    assert f"spec.{field} {NEVER}" in message(answer)


@pytest.mark.parametrize("field", LATE)
def test_immutable_fields_may_change_before_the_start(
    server: Server, installed: httpx.Response, field: str
) -> None:
    name = create(server, named()).json()["metadata"]["name"]
    answer = patch(server, name, {"spec": {field: LATE[field]}})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "change",
    [{"stop": {"maxSteps": 3}}, {"cancel": True}, {"ttlSecondsAfterFinished": 60}, {"suspend": True}],
)
def test_fields_that_control_a_run_may_change_while_it_runs(
    server: Server, installed: httpx.Response, change: dict[str, Any]
) -> None:
    answer = patch(server, started(server, storage=CLAIM), {"spec": change})
    assert answer.status_code == 200, answer.text


PLACEMENT = [
    {"resources": {"gpus": 2}},
    {"template": {"labels": {"team": "a"}}},
    {"template": {"affinity": {"nodeAffinity": {}}}},
]


@pytest.mark.parametrize("change", PLACEMENT)
def test_resources_and_template_may_change_only_while_no_pod_runs(
    server: Server, installed: httpx.Response, change: Object
) -> None:
    name = started(server, storage=CLAIM, template={"image": "trainer:1"})
    refused = patch(server, name, {"spec": change})
    assert refused.status_code == 422, refused.text
    assert f"spec.{next(iter(change))} {ONLY_SUSPENDED}" in message(refused)
    # With spec.suspend the pod may still run. It is gone only when the operator sets the phase Suspended.
    assert patch(server, name, {"spec": {"suspend": True}}).status_code == 200
    assert patch(server, name, {"spec": change}).status_code == 422
    assert patch(server, name, {"status": {"phase": "Suspended"}}, "/status").status_code == 200
    together = patch(server, name, {"spec": {**change, "suspend": False}})
    assert together.status_code == 200, together.text


def test_the_status_of_a_started_run_can_be_written(server: Server, installed: httpx.Response) -> None:
    name = started(server)
    answer = patch(
        server, name, {"status": {"phase": "Succeeded", "completionTime": "2026-11-22T19:00:00Z"}}, "/status"
    )
    assert answer.status_code == 200, answer.text


def longest(prefix: str, count: int, **fields: Any) -> list[Object]:
    return [{"name": f"{prefix}-{i}".ljust(50, "x"), **fields} for i in range(count)]


def test_a_spec_with_lists_of_maximum_length_stays_within_the_cel_cost_budget(
    server: Server, installed: httpx.Response
) -> None:
    code = "def grade(completion, row):\n    return 1.0\n" + "#" * 4000
    spec: dict[str, Any] = {
        "graders": longest("grader", 64, python={"inline": code}, scale={"min": 0, "max": 2}),
        "storage": {"claimTemplate": {"size": "1Gi", "accessModes": ["ReadWriteOnce"] * 3}},
        "sampling": {"stop": ["x" * 1000] * 4},
        "resources": {"tolerations": [{"key": f"key-{i}"} for i in range(64)]},
        "template": {
            "imagePullSecrets": longest("secret", 16),
            "env": [{"name": f"NAME_{i}", "value": "x" * 1000} for i in range(128)],
            "volumes": longest("volume", 32, mountPath="/m", configMap="models"),
        },
    }
    name = started(server, **spec)
    answer = patch(server, name, {"spec": {"stop": {"maxSteps": 3}}})
    assert answer.status_code == 200, answer.text
    too_many = create(server, named(graders=longest("grader", 65, math={})))
    assert too_many.status_code == 422
    assert "must have at most 64 items" in message(too_many)


def test_server_side_apply_merges_graders_by_name(server: Server, installed: httpx.Response) -> None:
    whole = named()
    assert apply(server, whole, "team").status_code == 201
    addition: Object = {key: whole[key] for key in ("apiVersion", "kind", "metadata")}
    addition["spec"] = {"graders": [{"name": "style", "weight": 0.5, "regex": {"pattern": "^[0-9]+$"}}]}
    answer = apply(server, addition, "reviewer")
    assert answer.status_code == 200, answer.text
    assert [g["name"] for g in answer.json()["spec"]["graders"]] == ["right", "style"]
    # When one field manager applies its part again, the grader of the other manager stays.
    answer = apply(server, whole, "team")
    assert [g["name"] for g in answer.json()["spec"]["graders"]] == ["right", "style"]
    conflicting = {**addition, "spec": {"graders": [{"name": "right", "math": {}}]}}
    refused = apply(server, conflicting, "reviewer")
    assert refused.status_code == 422, refused.text
    stored = server.call("GET", f"{RFTJOBS}/{whole['metadata']['name']}").json()
    assert [g["name"] for g in stored["spec"]["graders"]] == ["right", "style"]
