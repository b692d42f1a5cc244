"""Tests what kubectl prints about RFTJobs while an operator updates their status."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from rft_advice.guide import NINE
from rft_api.loader import load_file
from rft_codegen.crd import crd
from tests.cluster.layout import default_layout
from tests.integration.operator_support import Api, Operator
from tests.kubectl import Kubectl, Object

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))


def jobs(path: Path) -> list[Object]:
    """Return the RFTJobs in a file. Each gets a unique name."""
    found = [document.body for document in load_file(path) if document.body["kind"] == "RFTJob"]
    return [{**job, "metadata": {**job["metadata"], "name": f"kubectl-{uuid4().hex[:8]}"}} for job in found]


def words(text: str) -> str:
    """Return a text without its line breaks, because kubectl breaks lines at different widths."""
    return re.sub(r"\s+", " ", text)


def described() -> dict[str, str]:
    """Return the description of every field of the spec in the CRD, by the field's path."""
    found: dict[str, str] = {}

    def walk(path: str, schema: dict[str, Any]) -> None:
        for name, child in schema.get("properties", {}).items():
            found[f"{path}.{name}"] = child.get("description", "")
            walk(f"{path}.{name}", child.get("items", child))

    whole = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    walk("spec", whole)
    return found


@pytest.fixture(scope="module")
def kubectl(api: Api, operator: Operator, kubeconfig: Path) -> Kubectl:
    """kubectl in the namespace of the operator under test."""
    operator.check()
    found = shutil.which("kubectl", path=f"{default_layout().tools}:{os.environ['PATH']}")
    assert found is not None, "the test cluster runs, but kubectl is missing"
    return Kubectl(Path(found), kubeconfig, api.namespace)


@pytest.fixture
def applied(kubectl: Kubectl) -> Iterator[Callable[..., str]]:
    """Return a function that applies jobs and returns kubectl's output.

    The jobs are deleted after the test.
    """
    names: list[str] = []

    def apply(*objects: Object) -> str:
        names.extend(each["metadata"]["name"] for each in objects)
        return kubectl.apply(*objects).stdout

    yield apply
    if names:
        kubectl.run("delete", "rftjob", "--ignore-not-found", *names)


@pytest.mark.parametrize("path", [guide.path for guide in NINE])
def test_kubectl_explain_shows_the_description_of_a_parameter(kubectl: Kubectl, path: str) -> None:
    said = words(kubectl.run("explain", f"rftjob.{path}").stdout)
    assert words(described()[path]) in said
    assert "Default: " in said
    assert "Range: " in said or "One of: " in said


def test_kubectl_explain_describes_every_field(kubectl: Kubectl) -> None:
    said = words(kubectl.run("explain", "rftjob.spec", "--recursive").stdout)
    missing = [path for path in described() if not re.search(rf"\b{re.escape(path.split('.')[-1])}\b", said)]
    assert len(described()) > 100
    assert missing == []


def test_get_wide_shows_the_model_and_the_state_of_the_run(
    kubectl: Kubectl, applied: Callable[..., str]
) -> None:
    (job,) = jobs(ROOT / "examples" / "advice" / "defaults.yaml")
    applied(job)
    head, row = kubectl.run("get", "rftjob", job["metadata"]["name"], "-o", "wide").stdout.splitlines()
    columns = [column["name"].upper() for column in _columns()]
    assert head.split() == ["NAME", *columns]
    assert job["spec"]["model"]["name"] in row
    narrow = kubectl.run("get", "rftjob", job["metadata"]["name"]).stdout.splitlines()[0]
    assert narrow.split() == ["NAME", *(c["name"].upper() for c in _columns() if not c.get("priority"))]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_kubectl_diff_shows_no_difference_after_an_example_is_applied(
    kubectl: Kubectl, applied: Callable[..., str], path: Path
) -> None:
    objects = jobs(path)
    assert objects
    applied(*objects)
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    difference = kubectl.run("diff", "-f", "-", stdin=text, check=False)
    assert (difference.returncode, difference.stdout) == (0, ""), difference.stderr
    again = applied(*objects).splitlines()
    assert len(again) == len(objects)
    assert all(line.endswith(" unchanged") for line in again), again


def test_server_side_apply_keeps_fields_of_other_managers(kubectl: Kubectl) -> None:
    (job,) = jobs(ROOT / "examples" / "advice" / "defaults.yaml")
    job["spec"]["suspend"] = True  # these fields must not change after the start
    name = job["metadata"]["name"]
    style = {"name": "style", "weight": 0.5, "regex": {"pattern": "^[0-9]+$"}}
    addition = {**job, "spec": {"graders": [style]}}

    def apply(manager: str, what: Object) -> Any:
        # Before 1.25 kubectl reports required fields as missing in a manifest with only a part of an object.
        arguments = ("apply", "--server-side", "--validate=false", f"--field-manager={manager}", "-f", "-")
        return kubectl.run(*arguments, stdin=json.dumps(what), check=False)

    try:
        for manager, what in (("team", job), ("reviewer", addition), ("team", job)):
            answer = apply(manager, what)
            assert answer.returncode == 0, answer.stderr
        graders = kubectl.get("rftjob", name)["spec"]["graders"]
        assert [grader["name"] for grader in graders] == [
            *(grader["name"] for grader in job["spec"]["graders"]),
            "style",
        ]
        conflict = apply("reviewer", {**job, "spec": {**job["spec"], "training": {"seed": 7}}})
        mine = apply("team", {**job, "spec": {**job["spec"], "training": {"seed": 8}}})
        assert conflict.returncode == 0, conflict.stderr
        assert mine.returncode != 0
        assert "conflict" in mine.stderr
        assert ".spec.training.seed" in mine.stderr
    finally:
        kubectl.run("delete", "rftjob", "--ignore-not-found", name)


def _columns() -> list[dict[str, Any]]:
    return list(crd()["spec"]["versions"][0]["additionalPrinterColumns"])
