"""rft validate reports every problem with its field, value, allowed range and correction."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from rft_advice import RULES
from rft_advice.urgency import MATTERS_MOST
from rft_cli.main import app

JOB = """
apiVersion: rft.dev/v1alpha1
kind: RFTJob
metadata: {name: arithmetic}
spec:
  model: {name: Qwen/Qwen2.5-0.5B-Instruct}
  dataset: {configMap: {name: rows}}
  graders: [{name: number, numeric: {}}]
  training: {learningRate: 1e-4}
  storage: {ephemeral: {}}
"""
ROWS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: other-rows}
data: {other.jsonl: '{}'}
"""

runner = CliRunner()


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def test_a_valid_job_is_named_and_exits_0(job_file: Path) -> None:
    result = runner.invoke(app, ["validate", str(job_file)])
    assert result.exit_code == 0
    assert "RFTJob arithmetic: OK" in result.stdout


def test_advice_is_printed_as_warnings_and_the_exit_code_stays_0(job_file: Path) -> None:
    job_file.write_text(JOB.replace("learningRate: 1e-4", "epochs: 4"))
    result = runner.invoke(app, ["validate", str(job_file)])
    assert result.exit_code == 0
    head, *warnings = result.stdout.splitlines()
    assert head.endswith("RFTJob arithmetic: OK")
    assert [line.partition(" [")[0].split()[:2] for line in warnings] == [
        ["warning:", "spec.storage.ephemeral:"],
        ["warning:", "spec.training.epochs:"],
    ]


MANY = JOB.replace("learningRate: 1e-4", "learningRate: 5e-4, epochs: 9, batchSizeTokens: 1048576")


def test_the_three_warnings_that_matter_most_are_printed_and_the_rest_behind_all(job_file: Path) -> None:
    job_file.write_text(MANY)
    few = runner.invoke(app, ["validate", str(job_file)]).stdout.splitlines()
    everything = runner.invoke(app, ["validate", "--all", str(job_file)]).stdout.splitlines()
    assert len(few) == 5
    assert few[-1] == f"  {len(everything) - 4} more warnings: --all prints them too"
    assert few[:4] == everything[:4]
    assert [line.rpartition("[")[2][:-1] for line in few[1:3]] == ["learning-rate-high", "storage-ephemeral"]


def test_acknowledged_advice_is_not_printed_any_more(job_file: Path) -> None:
    ids = "storage-ephemeral, epochs-many"
    annotated = MANY.replace(
        "name: arithmetic}", f"name: arithmetic, annotations: {{rft.dev/acknowledged-advice: '{ids}'}}}}"
    )
    job_file.write_text(annotated)
    result = runner.invoke(app, ["validate", "--all", str(job_file)])
    assert result.exit_code == 0, result.output
    assert "learning-rate-high" in result.stdout
    assert "storage-ephemeral" not in result.stdout
    assert "epochs-many" not in result.stdout
    job_file.write_text(annotated.replace("epochs-many", "epoch-many"))
    said = runner.invoke(app, ["validate", str(job_file)]).stdout
    assert "'epoch-many' is not the id of any advice; did you mean epochs-many?" in said


def test_what_matters_most_names_rules_that_exist() -> None:
    assert set(MATTERS_MOST) <= {rule.id for rule in RULES}


def test_a_number_of_gpus_that_the_plan_would_not_take_is_a_warning(job_file: Path) -> None:
    claim = JOB.replace("ephemeral: {}", "claimTemplate: {size: 5Gi}")
    job_file.write_text(f"{claim}  resources: {{gpus: 4}}\n")
    result = runner.invoke(app, ["validate", str(job_file)])
    assert result.exit_code == 0
    assert "warning: spec.resources.gpus: 4 is used; the plan for nvidia-h100-80gb needs 1" in result.stdout


def test_a_job_of_defaults_is_not_warned_about(job_file: Path) -> None:
    job_file.write_text(JOB.replace("ephemeral: {}", "claimTemplate: {size: 5Gi}"))
    result = runner.invoke(app, ["validate", str(job_file)])
    assert result.stdout == f"{job_file}: RFTJob arithmetic: OK\n"


def test_other_kinds_in_the_same_file_are_skipped(job_file: Path) -> None:
    job_file.write_text(f"{ROWS}---{JOB}---\napiVersion: v1\nkind: PersistentVolumeClaim\nspec: {{bad: 1}}\n")
    result = runner.invoke(app, ["validate", str(job_file)])
    assert result.exit_code == 0
    assert len([line for line in result.stdout.splitlines() if "warning:" not in line]) == 1


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("learningRate: 1e-4", "learningRate: 0.1", ["spec.training.learningRate", "0.1", "1e-05 to 0.0005"]),
        ("learningRate: 1e-4", "epochs: 11", ["spec.training.epochs", "11", "1 to 10"]),
        ("learningRate: 1e-4", "topk: 5", ["spec.training.topk", "did you mean spec.sampling.topK?"]),
        ("learningRate: 1e-4", "loraRank: 7", ["spec.training.loraRank", "7", "4, 8, 16, 32"]),
        ("storage: {ephemeral: {}}", "storage: {}", ["spec.storage", "exactly one of", "none is set"]),
        ("kind: RFTJob", "kind: RftJob", ["kind", "RftJob", "RFTJob"]),
    ],
)
def test_a_problem_names_field_value_and_what_is_allowed(
    job_file: Path, old: str, new: str, words: list[str]
) -> None:
    job_file.write_text(JOB.replace(old, new))
    result = runner.invoke(app, ["validate", str(job_file)])
    assert result.exit_code == 1
    assert all(word in result.stdout for word in words), result.stdout


def test_all_problems_of_all_files_are_reported_at_once(job_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(JOB.replace("learningRate: 1e-4", "epochs: 0, loraAlpha: 0"))
    job_file.write_text(JOB.replace("name: arithmetic", "name: Arithmetic"))
    result = runner.invoke(app, ["validate", str(job_file), str(other)])
    assert result.exit_code == 1
    assert "1 problem\n" in result.stdout
    assert "2 problems\n" in result.stdout


def test_an_unreadable_file_exits_2_and_the_others_are_still_checked(job_file: Path, tmp_path: Path) -> None:
    result = runner.invoke(app, ["validate", str(tmp_path / "none.yaml"), str(job_file)])
    assert result.exit_code == 2
    assert "none.yaml" in result.stderr
    assert "OK" in result.stdout


def test_a_key_that_stands_twice_is_unreadable_as_in_kubectl(job_file: Path) -> None:
    job_file.write_text(JOB + "  suspend: true\n  suspend: false\n")
    result = runner.invoke(app, ["validate", str(job_file)])
    assert result.exit_code == 2
    assert "suspend" in result.stderr


def test_a_manifest_is_read_from_stdin() -> None:
    result = runner.invoke(app, ["validate", "-"], input=JOB)
    assert result.exit_code == 0
    assert "stdin" in result.stdout


def test_the_readmes_manifest_lacks_only_rows() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    manifest = readme.partition("```yaml\n")[2].partition("```")[0]
    result = runner.invoke(app, ["validate", "-"], input=manifest)
    assert "1 problem\n  spec.dataset: 2 distinct prompts are fewer than 64" in result.stdout
