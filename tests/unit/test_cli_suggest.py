"""rft suggest writes experiments as manifests, to stdout or into a folder."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from rft_advice.baseline import ANNOTATION
from rft_advice.suggest import Goal
from rft_api.loader import load_documents, load_file
from rft_api.validation import check
from rft_cli.main import app

JOB = """
apiVersion: rft.dev/v1alpha1
kind: RFTJob
metadata: {name: sums}
spec:
  model: {name: Qwen/Qwen2.5-7B-Instruct}
  dataset: {uri: ./rows.jsonl}
  graders: [{name: number, numeric: {}}]
  storage: {claimTemplate: {size: 5Gi}}
"""
ROWS = """
---
apiVersion: v1
kind: ConfigMap
metadata: {name: rows}
data: {train.jsonl: '{}'}
"""

runner = CliRunner()


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB + ROWS)
    return path


@pytest.mark.parametrize("goal", Goal)
def test_stdout_holds_valid_jobs_only(job_file: Path, goal: Goal) -> None:
    result = runner.invoke(app, ["suggest", "--goal", goal.value, str(job_file)])
    assert result.exit_code == 0, result.stderr
    documents = load_documents(result.stdout)
    assert documents
    for document in documents:
        assert check(document.body).problems == ()
        assert document.body["metadata"]["annotations"] == {ANNOTATION: "sums"}


def test_each_manifest_says_what_it_changes_and_why(job_file: Path) -> None:
    result = runner.invoke(app, ["suggest", "--goal", "better-quality", str(job_file)])
    assert "# spec.sampling.numRollouts: 4 -> 6\n# Toward better-quality: " in result.stdout
    assert result.stdout.count("---\n") == 2


def test_an_experiment_does_not_write_over_the_result_of_its_baseline(job_file: Path) -> None:
    job_file.write_text(JOB + "  output: {hub: {repository: team/sums}}\n" + ROWS)
    result = runner.invoke(app, ["suggest", "--goal", "better-quality", str(job_file)])
    assert "# spec.output is left out, so that the result of sums is not overwritten.\n" in result.stdout
    assert all("output" not in document.body["spec"] for document in load_documents(result.stdout))


def test_advice_on_an_experiment_is_a_comment_in_it(job_file: Path) -> None:
    result = runner.invoke(app, ["suggest", "--goal", "faster-convergence", str(job_file)])
    assert "# advice: spec.training.learningRate: 0.00015 is above" in result.stdout


def test_with_output_each_experiment_is_a_file_and_again_the_same(job_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "next" / "safer"
    arguments = ["suggest", "--goal", "safer", str(job_file), "--output", str(folder)]
    for _ in range(2):
        result = runner.invoke(app, arguments)
        assert result.exit_code == 0, result.stderr
        assert result.stdout == ""
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["sums-temperature-0-5.yaml", "sums-topk-20.yaml", "sums-topp-0-5.yaml"]
    (document,) = load_file(folder / "sums-topk-20.yaml")
    assert check(document.body).job is not None
    assert "spec.dataset.uri ./rows.jsonl is relative to" in result.stderr


def test_a_relative_dataset_of_the_evaluation_is_told_too(job_file: Path, tmp_path: Path) -> None:
    job_file.write_text(JOB + "  evaluation: {dataset: {uri: ./held.jsonl}}\n" + ROWS)
    folder = tmp_path / "next"
    result = runner.invoke(app, ["suggest", "--goal", "safer", str(job_file), "--output", str(folder)])
    assert result.exit_code == 0, result.stderr
    assert "spec.evaluation.dataset.uri ./held.jsonl is relative to" in result.stderr
    assert "pass --evaluation-dataset" in result.stderr


def test_a_file_that_was_edited_is_not_overwritten(job_file: Path, tmp_path: Path) -> None:
    edited = tmp_path / "sums-lorarank-16.yaml"
    edited.write_text("mine")
    arguments = ["suggest", "--goal", "higher-capacity", str(job_file), "--output", str(tmp_path)]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert "exists with other content" in result.stderr
    assert edited.read_text() == "mine"


def test_a_goal_at_its_limit_says_so_and_names_what_is_left(job_file: Path) -> None:
    job_file.write_text(JOB + "  training: {loraRank: 32}\n")
    result = runner.invoke(app, ["suggest", "--goal", "higher-capacity", str(job_file)])
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "loraRank 32 has no further value to try for the goal higher-capacity" in result.stderr
    assert "no further value to try" in result.stderr
    assert "prevent-overfitting" in result.stderr


def test_an_invalid_job_or_goal_or_two_jobs_are_refused(job_file: Path) -> None:
    assert runner.invoke(app, ["suggest", "--goal", "fame", str(job_file)]).exit_code == 2
    job_file.write_text(JOB + "  training: {epochs: 0}\n")
    result = runner.invoke(app, ["suggest", "--goal", "safer", str(job_file)])
    assert result.exit_code == 1
    assert "spec.training.epochs: 0" in result.stderr
    job_file.write_text(f"{JOB}---{JOB}")
    result = runner.invoke(app, ["suggest", "--goal", "safer", str(job_file)])
    assert result.exit_code == 1
    assert "2 RFTJobs" in result.stderr


def test_a_manifest_is_read_from_stdin() -> None:
    result = runner.invoke(app, ["suggest", "--goal", "safer", "-"], input=JOB)
    assert result.exit_code == 0, result.stderr
    assert len(load_documents(result.stdout)) == 3
