"""rft report: one page about a run, read from its folder or from a job in the cluster."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from rft_api.effective import effective
from rft_api.validation import parse
from rft_cli.main import app
from rft_run.config import JobIdentity, RunConfig
from tests.api_server import Server, job, served
from tests.manifests import manifest

GRADER = {"base": 0.25, "tuned": 0.75, "difference": {"mean": 0.5, "low": 0.4, "high": 0.6}}
STATUS: dict[str, Any] = {
    "phase": "Succeeded",
    "message": "Every epoch is trained.",
    "progress": {"step": 2, "totalSteps": 2, "totalStepsEstimated": False, "attempt": 2},
    "evaluation": {"rows": 32, "step": 2, "reward": GRADER, "graders": {"right": GRADER}},
    "recommendations": [{"rule": "cut-off", "parameter": "spec.sampling.maxTokens", "message": "Raise it."}],
    "usage": {
        "gpuSeconds": 7200.0, "promptTokens": 10, "completionTokens": 20, "cost": 5.0,
        "graderErrors": {"right": 3}, "forgedReplies": {"right": 1},
    },
    "plan": {"gpus": 1, "device": "cuda", "accelerator": "H100", "notes": ["one GPU holds both sides"]},
    "output": {"folder": "/runs/team/job", "adapter": "/runs/team/job/adapter"},
}  # fmt: skip
HEADINGS = [
    "# job",
    "## Held-out evaluation",
    "## Reward",
    "## Advice",
    "## Parameters",
    "## Plan",
    "## Used",
]


def report(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def headings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("#")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    spec = parse(manifest(training={"objective": "gspo", "seed": 11})).spec
    config = RunConfig(
        job=JobIdentity(name="job", namespace="team", uid="uid"),
        spec=spec,
        effective=effective(spec, "uid"),
        run_dir=str(tmp_path),
        dataset_path="rows.jsonl",
    )
    (tmp_path / "run.json").write_text(json.dumps(config.dump()))
    (tmp_path / "status.yaml").write_text(yaml.safe_dump(STATUS))
    rows = [{"step": step, "reward": step / 10} for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_the_page_of_a_folder_has_every_part(folder: Path) -> None:
    text = report(folder).stdout
    assert headings(text) == HEADINGS
    assert "- phase: Succeeded (Every epoch is trained.)" in text
    assert "- steps: 2/2, attempt 2" in text
    assert "- adapter: `/runs/team/job/adapter`" in text
    assert "| reward | 0.250 | 0.750 | +0.500 | +0.400 to +0.600 |" in text
    assert "scores higher than the base" in text
    assert "- `spec.sampling.maxTokens`: Raise it. (cut-off)" in text
    assert "- 1 GPUs of H100, device cuda" in text
    assert "- one GPU holds both sides" in text
    assert "- GPUs: 2.00 hours" in text
    assert "- cost: 5.00" in text
    assert "- errors of right: 3" in text
    assert "- replies that another program forged in place of right, and that were refused: 1" in text


def test_a_run_with_an_environment_says_what_its_rollouts_did(folder: Path) -> None:
    said = {"turns": 2.5, "toolCalls": 1.25, "toolErrors": 4, "environmentFraction": 0.31}
    (folder / "status.yaml").write_text(yaml.safe_dump({**STATUS, "metrics": said}))
    assert (
        "- a rollout: 2.5 turns, 1.2 tool calls, 31% of its time waiting for the environment;"
        " 4 tool calls of the step failed"
    ) in report(folder).stdout


def test_parameters_are_those_the_run_used_defaults_included(folder: Path) -> None:
    text = report(folder).stdout
    for line in (
        "| training.objective | gspo | grpo | changed |",
        "| training.clipHigh | 0.0004 | derived |  |",
        "| training.seed | 11 | derived | changed |",
        "| sampling.topK | 40 | 40 |  |",
        "| graders.right | numeric, weight 1 |  |  |",
    ):
        assert line in text


def test_a_run_that_has_just_begun_leaves_out_what_is_not_known(folder: Path) -> None:
    (folder / "status.yaml").unlink()
    (folder / "metrics.jsonl").unlink()
    text = report(folder).stdout
    assert headings(text) == ["# job", "## Parameters", "## Plan"]
    assert "- phase: Pending" in text


def test_the_page_is_written_into_a_file(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.md"
    result = report(folder, "--output", page)
    assert result.exit_code == 0
    assert headings(page.read_text()) == HEADINGS
    assert report(folder, "--output", tmp_path / "none" / "report.md").exit_code == 2


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    result = report(tmp_path)
    assert result.exit_code == 2
    assert "has no run.json" in result.stderr


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with served(tmp_path, monkeypatch) as server:
        yield server


def test_the_page_of_a_job_comes_from_its_status(server: Server) -> None:
    found = job("job")
    found["spec"] = manifest()["spec"]
    found["status"] |= STATUS
    server.jobs = [found]
    assert headings(report("job").stdout) == HEADINGS


def test_a_job_of_a_newer_operator_names_the_field_that_is_not_known(server: Server) -> None:
    found = job("job")
    found["spec"] = manifest()["spec"] | {"novelty": 1}
    server.jobs = [found]
    result = report("job")
    assert result.exit_code == 1
    assert "novelty is not known" in result.stderr
