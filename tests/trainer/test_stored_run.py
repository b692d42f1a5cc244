"""Runs of an earlier release can be read, shown in reports and resumed.

The folder ``tests/stored/c5ea54e`` has two runs: one that ended, and one that was stopped after two of four
steps. ``rft run`` of the commit c5ea54e made them, on a CPU with bfloat16 instructions. In the files,
``@FOLDER@`` stands for the folder's path.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from rft_api.status import RFTJobStatus
from rft_cli.main import app
from rft_run.config import RunConfig, read_run_config
from rft_trainer.engines import model_dtype

ROOT = Path(__file__).parents[2]
STORED = sorted((ROOT / "tests/stored").iterdir())


@pytest.fixture(params=STORED, ids=lambda path: path.name)
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Copy the stored runs, and return the path of the copy. This path replaces ``@FOLDER@`` in its files."""
    folder = tmp_path / "stored"
    shutil.copytree(request.param, folder)
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".yaml", ".md", ".log", ".jsonl") and path.is_file():
            path.write_text(path.read_text().replace("@FOLDER@", str(folder)))
    return folder


def command(*words: str | Path) -> str:
    """Run ``rft`` in this process, and check that it succeeds. Return its output."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def config(folder: Path) -> RunConfig:
    return read_run_config((folder / "run.json").read_text())


def steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_command_can_read_a_finished_run(stored: Path, tmp_path: Path) -> None:
    folder = stored / "whole"
    assert "# stored" in command("report", folder)
    assert re.search(r"\d\+\d", command("samples", folder, "--step", "1"))
    assert "step" in command("curve", folder)
    command("export", folder, "--output", tmp_path / "exported")
    assert (tmp_path / "exported" / "adapter_model.safetensors").is_file()
    status = yaml.safe_load((folder / "status.yaml").read_text())
    assert RFTJobStatus.model_validate(status, by_alias=True, by_name=False).phase == "Succeeded"


@pytest.mark.parametrize("machine", ["float32", "bfloat16"])
def test_a_stopped_run_can_be_resumed_to_its_end(
    stored: Path, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RFT_CPU_DTYPE", machine)
    folder = stored / "cut"
    assert steps(folder) == [1, 2]
    plan = config(folder).plan
    assert plan is not None
    assert plan.dtype is None  # that release wrote no dtype into the plan
    before = (folder / "metrics.jsonl").read_text()
    path = os.pathsep.join(str(ROOT / part) for part in ("operator", "trainer-image"))
    rft = [sys.executable, "-c", "from rft_cli.main import app; app()"]
    ended = subprocess.run(
        [*rft, "run", str(stored / "job.yaml"), "--output", str(folder)],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "resuming stored" in ended.stdout
    assert steps(folder) == [1, 2, 3, 4]
    assert (folder / "metrics.jsonl").read_text().startswith(before)
    assert model_dtype(config(folder)) == "float32"
