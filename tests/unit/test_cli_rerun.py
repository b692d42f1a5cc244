"""rft rerun starts a job of the cluster again as a new job, with some values changed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rft_advice.baseline import ANNOTATION
from rft_api.loader import load_file
from rft_cli.cluster.client import Body
from rft_cli.main import app
from tests.api_server import Server, job, served
from tests.manifests import manifest
from tests.unit.apply_support import record_applied


def rerun(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["rerun", *map(str, arguments)])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with served(tmp_path, monkeypatch) as server:
        found = job("job")
        found["spec"] = manifest()["spec"]
        server.jobs = [found]
        yield server


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[Body]:
    """Return a list. Each object that a command applies is added to the list, and not sent."""
    return record_applied(monkeypatch)


def test_the_changed_job_is_applied_with_its_baseline(server: Server, applied: list[Body]) -> None:
    result = rerun("job", "--set", "training.loraRank=16", "--set", "training.learningRate=5e-5")
    assert result.exit_code == 0, result.output
    assert "RFTJob job-lorarank-16-and-1 created" in result.stdout
    assert "rft compare job job-lorarank-16-and-1" in result.stdout
    assert applied[0]["spec"]["training"] == {"loraRank": 16, "learningRate": 5e-5}
    assert applied[0]["metadata"]["annotations"] == {ANNOTATION: "job"}


def test_a_job_with_an_output_is_run_again_without_it_and_this_is_said(
    server: Server, applied: list[Body]
) -> None:
    server.jobs[0]["spec"]["output"] = {"hub": {"repository": "team/sums"}}
    result = rerun("job", "--set", "training.loraRank=16")
    assert result.exit_code == 0, result.output
    assert "spec.output is left out, so that the result of job is not overwritten; --set" in result.stderr
    assert "output" not in applied[0]["spec"]


def test_a_job_that_exists_is_not_changed(server: Server, applied: list[Body]) -> None:
    server.jobs.append(job("second"))
    result = rerun("job", "--name", "second")
    assert result.exit_code == 1
    assert "second: exists already" in result.stderr
    assert applied == []


def test_the_manifest_is_written_and_nothing_started(
    server: Server, applied: list[Body], tmp_path: Path
) -> None:
    path = tmp_path / "again.yaml"
    assert rerun("job", "--set", "graders[0].weight=2", "--output", path).exit_code == 0
    assert load_file(path)[0].body["spec"]["graders"][0]["weight"] == 2
    assert applied == []


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ("training.loraRank=5", 1, "spec.training.loraRank"),
        ("training.rank=8", 2, "no field training.rank"),
        ("training.loraRank", 2, "must be FIELD=VALUE, such as training.loraRank=16"),
        ("training.loraRank=[", 2, "the value is not YAML"),
        ("graders[4].weight=1", 2, "its items are 0 to 0"),
    ],
)
def test_a_value_that_cannot_be_set_is_explained(
    server: Server, applied: list[Body], given: str, code: int, said: str
) -> None:
    result = rerun("job", "--set", given)
    assert result.exit_code == code
    assert said in result.stderr
    assert applied == []
