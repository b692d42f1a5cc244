"""rft submit sends only valid objects. tests/integration tests it with a real API server."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from rft_cli.main import app
from tests import manifests


def manifest(**spec: object) -> dict[str, Any]:
    """Return a valid RFTJob whose rows are in a ConfigMap."""
    return manifests.manifest(**{"dataset": {"configMap": {"name": "rows"}}, **spec})


def submit(*arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(app, ["submit", *arguments], input=text)


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("field", "fix"),
    [
        ({"top_k": 5}, "did you mean spec.sampling.topK?"),
        ({"topk": 5}, "did you mean spec.sampling.topK?"),
        ({"topK": "5"}, "spec.sampling.topK"),
        ({"topK": 101}, "0 to 100"),
    ],
)
def test_a_slip_is_answered_with_the_fix_before_anything_is_sent(field: dict[str, object], fix: str) -> None:
    result = submit("-", text=yaml.safe_dump(manifest(sampling=field)))
    assert result.exit_code == 1
    assert fix in result.stdout
    assert "nothing was submitted" in result.stderr


def test_one_wrong_job_holds_all_back() -> None:
    result = submit("-", text=yaml.safe_dump_all([manifest(), manifest(seed="x")]))
    assert result.exit_code == 1
    assert "nothing was submitted" in result.stderr


def test_a_file_without_a_job_is_refused() -> None:
    text = "{apiVersion: v1, kind: ConfigMap, metadata: {name: rows}}"
    assert "has no RFTJob" in submit("-", text=text).stderr


def test_what_has_no_name_is_refused_by_its_place() -> None:
    rows = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}
    result = submit("-", text=yaml.safe_dump_all([manifest(), rows]))
    assert result.exit_code == 1
    assert "metadata.name: is missing" in result.stderr


def test_two_namespaces_for_one_object_are_refused() -> None:
    placed = manifest()
    placed["metadata"]["namespace"] = "team-a"
    result = submit("-", "--namespace", "team-b", text=yaml.safe_dump(placed))
    assert result.exit_code == 1
    assert "'team-a'" in result.stderr
    assert "'team-b'" in result.stderr


def test_without_a_cluster_it_says_what_to_set() -> None:
    result = submit("-", text=yaml.safe_dump(manifest()))
    assert result.exit_code == 2
    assert "set KUBECONFIG" in result.stderr


def test_watching_needs_one_job_that_is_stored() -> None:
    text = yaml.safe_dump(manifest())
    assert "--watch follows one job" in submit("-", "--watch", "--dry-run", text=text).stderr


def test_what_would_fail_later_is_not_submitted() -> None:
    result = submit("-", text=yaml.safe_dump(manifest(model={"name": "gpt-4o"})))
    assert result.exit_code == 1
    assert "is a closed model" in result.stdout
    assert "nothing was submitted" in result.stderr
