"""A spec of v1alpha1 stays the same when it is converted to the draft of v1beta1 and back."""

import json
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import HealthCheck, assume, given, settings

from rft_api.base import Model
from rft_api.conversion import MOVED, REVALUED, to_alpha, to_beta
from rft_api.job import RFTJobSpec
from rft_api.loader import load_file
from rft_api.validation import check
from rft_cli.local.manifest import is_job
from tests.manifests import manifest
from tests.parity.random_specs import manifests

ROOT = Path(__file__).parents[2]
STORED = sorted((Path(__file__).parent / "stored").glob("*.json"))
EARLIER = sorted((ROOT / "tests" / "stored").glob("*/cluster/rftjob.json"))
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))
Json = dict[str, Any]


def paths(value: Any, path: str = "") -> set[str]:
    """Return the path of every field in a JSON value, with ``[]`` for the items of lists."""
    if isinstance(value, dict):
        below = {f"{path}.{key}".lstrip("."): inner for key, inner in value.items()}
        return {each for where, inner in below.items() for each in {where} | paths(inner, where)}
    if isinstance(value, list):
        return {each for inner in value for each in paths(inner, f"{path}[]")}
    return set()


ELSEWHERE = {moved.alpha for moved in MOVED} - {
    # These paths exist in v1beta1 too, as objects.
    "template.volumes[].persistentVolumeClaim",
    "template.volumes[].configMap",
}
"""Paths of fields in the spec of v1alpha1 that no spec of v1beta1 has."""


def go_and_return(spec: Json) -> None:
    before = json.dumps(spec, sort_keys=True)
    beta = to_beta(spec)
    assert not paths(beta) & ELSEWHERE
    assert json.dumps(to_alpha(beta), sort_keys=True) == before
    assert json.dumps(spec, sort_keys=True) == before, "the argument was changed"


@pytest.mark.timeout(600)
@settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(document=manifests())
def test_random_valid_specs_come_back_the_same(document: Json) -> None:
    job, _ = check(document)
    assume(job is not None)
    assert job is not None
    go_and_return(job.spec.dump())
    go_and_return(json.loads(json.dumps(job.spec.model_dump(mode="json", by_alias=True, exclude_unset=True))))


@pytest.mark.parametrize(
    "path", [*STORED, *EARLIER], ids=lambda path: f"{path.parent.parent.name}-{path.stem}"
)
def test_stored_specs_come_back_the_same(path: Path) -> None:
    go_and_return(json.loads(path.read_text(encoding="utf-8"))["spec"])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_come_back_the_same(path: Path) -> None:
    for document in load_file(path):
        if is_job(document.body):
            go_and_return(document.body["spec"])


def test_the_draft_looks_like_kubernetes_own_objects() -> None:
    spec = manifest(
        model={"name": "a", "secretRef": {"name": "s", "key": "k"}},
        storage={"claimTemplate": {"size": "1Gi", "retain": False}},
        resources={"cpu": "2", "cpuLimit": "4", "memory": "8Gi", "gpus": 1},
        template={"volumes": [{"name": "v", "mountPath": "/v", "configMap": "c"}]},
        training={"loraTargets": "all-linear", "objective": "drGrpo"},
        retry={"limit": 2},
        stop={"deadline": "2027-01-31T18:00:00Z"},
    )["spec"]
    beta = to_beta(spec)
    assert {name: beta[name] for name in beta if name != "graders"} == {
        "model": {"name": "a", "secretKeyRef": {"name": "s", "key": "k"}},
        "dataset": {"source": {"uri": "./rows.jsonl"}},
        "storage": {
            "claimTemplate": {
                "resources": {"requests": {"storage": "1Gi"}},
                "retentionPolicy": {"whenDeleted": "Delete"},
            }
        },
        "resources": {
            "requests": {"cpu": "2"},
            "limits": {"cpu": "4", "memory": "8Gi"},
            "gpus": 1,
        },
        "template": {"volumes": [{"name": "v", "mountPath": "/v", "configMap": {"name": "c"}}]},
        "training": {"loraTargets": "AllLinear", "objective": "DrGRPO"},
        "retry": {"backoffLimit": 2},
        "stop": {"deadlineTime": "2027-01-31T18:00:00Z"},
    }


def test_an_empty_object_stays_an_empty_object() -> None:
    specs: list[Json] = [
        {"resources": {}}, {"template": {}}, {"resources": {"accelerator": {}}, "stop": {}},
    ]  # fmt: skip
    for spec in specs:
        go_and_return(spec)


def fields(annotation: Any, path: str) -> dict[str, tuple[Any, ...]]:
    """Return all values that each field at or below ``path`` can have. The key is the field's path.

    Only the values of a Literal and of a bool are listed. A field of another type has ``()``.
    """
    if get_origin(annotation) is Literal:
        return {path: get_args(annotation)}
    if annotation is bool:
        return {path: (True, False)}
    if isinstance(annotation, type) and issubclass(annotation, Model):
        found: dict[str, tuple[Any, ...]] = {path: ()}
        for name, info in annotation.model_fields.items():
            found |= fields(info.annotation, f"{path}.{info.alias or name}".lstrip("."))
        return found
    of_items = path + "[]" if get_origin(annotation) is list else path
    below = [fields(each, of_items) for each in get_args(annotation)]
    named = {where: values for each in below for where, values in each.items() if values}
    return {**dict.fromkeys([path, *(where for each in below for where in each)], ()), **named}


def test_the_tables_name_fields_of_the_spec_and_all_their_values() -> None:
    known = fields(RFTJobSpec, "")
    for moved in MOVED:
        assert moved.alpha in known
    for path, beta_of in REVALUED:
        assert set(known[path]) == set(beta_of)
        assert len(set(beta_of.values())) == len(beta_of)
    short = {path for path in known if path.endswith(".secretRef")}
    assert short == {moved.alpha for moved in MOVED if moved.alpha.endswith(".secretRef")}
