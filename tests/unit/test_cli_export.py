"""rft export chooses and copies adapters. Merging needs torch, so it is tested in tests/trainer."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rft_api.effective import effective
from rft_api.validation import parse
from rft_cli.commands.export import choose
from rft_cli.main import app
from rft_run.config import JobIdentity, RunConfig
from rft_run.state import RunState
from tests.manifests import manifest
from tests.unit.checkpoint_support import write_adapter


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the folder of a run of 30 steps with two checkpoints. The older one has the better reward."""
    folder = tmp_path / "run"
    write_adapter(folder / "adapter", "final")
    for step in (10, 20):
        write_adapter(folder / "checkpoints" / f"step-{step:06d}" / "adapter", f"step {step}")
        state = RunState(step=step, best_reward=0.5, best_step=10).to_json()
        (folder / "checkpoints" / f"step-{step:06d}" / "state.json").write_text(json.dumps(state))
    spec = parse(manifest(model={"name": "org/model", "revision": "abc"})).spec
    config = RunConfig(
        job=JobIdentity(name="job", namespace="team", uid="uid"),
        spec=spec,
        effective=effective(spec, "uid"),
        run_dir=str(folder),
        dataset_path="rows.jsonl",
    )
    (folder / "run.json").write_text(json.dumps(config.dump()))
    return folder


def export(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def exported(output: Path) -> str:
    return (output / "adapter_model.safetensors").read_bytes().partition(b"}}")[2].decode()


@pytest.mark.parametrize(
    ("options", "content"),
    [([], "final"), (["--step", 20], "step 20"), (["--best"], "step 10")],
)
def test_the_final_adapter_is_copied_unless_another_is_named(
    run: Path, tmp_path: Path, options: list[object], content: str
) -> None:
    result = export(run, "--output", tmp_path / "out" / "adapter", *options)
    assert result.exit_code == 0, result.stderr
    assert exported(tmp_path / "out" / "adapter") == content
    assert "adapter of" in result.stdout


def test_a_copied_adapter_names_its_base_as_the_job_does(run: Path, tmp_path: Path) -> None:
    assert export(run, "--output", tmp_path / "out").exit_code == 0
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config == {"r": 8, "base_model_name_or_path": "org/model", "revision": "abc"}


@pytest.mark.parametrize(("options", "step"), [([], 30), (["--step", 20], 20)])
def test_an_exported_adapter_has_a_card_with_what_the_run_recorded(
    run: Path, tmp_path: Path, options: list[object], step: int
) -> None:
    (run / "adapter" / "README.md").write_text("- licence of the base: mit\n\nof /opt/models/somewhere")
    rows = [{"step": number, "reward": number / 100} for number in range(1, 31)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert export(run, "--output", tmp_path / "out", *options).exit_code == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"# job, step {step}" in card
    assert f"| {step} | {step / 100:.3f} |" in card
    assert "`org/model`, revision `abc`" in card
    assert ("licence of the base: mit" in card) is (step == 30)
    assert "/opt/models" not in card


def test_an_exported_adapter_can_be_read_by_whoever_serves_it(run: Path, tmp_path: Path) -> None:
    weights = run / "adapter" / "adapter_model.safetensors"
    weights.chmod(0o600)
    before = os.umask(0o022)
    try:
        assert export(run, "--output", tmp_path / "out").exit_code == 0
    finally:
        os.umask(before)
    assert (tmp_path / "out" / "adapter_model.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_run_that_goes_on_gives_its_newest_checkpoint(run: Path) -> None:
    (run / "adapter" / "adapter_config.json").unlink()
    assert choose(run, None, best=False).what == "step 20"


def test_an_adapters_own_folder_is_copied_as_it_is(run: Path, tmp_path: Path) -> None:
    assert export(run / "adapter", "--output", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "adapter_config.json").read_text().count("/opt/models/somewhere") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--step", 15], "step 15: has no checkpoint"),
        (["--step", 10, "--best"], "exclude each other"),
        (["--base", "org/other"], "only used by --merge"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_there_is(
    run: Path, tmp_path: Path, options: list[object], message: str
) -> None:
    result = export(run, "--output", tmp_path / "out", *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_is_cut_off_is_named_and_the_newest_whole_one_is_exported(
    run: Path, tmp_path: Path
) -> None:
    for folder in (run / "adapter", run / "checkpoints" / "step-000020" / "adapter"):
        weights = folder / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
    result = export(run, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert exported(tmp_path / "out") == "step 10"
    assert f"left out: {run / 'adapter' / 'adapter_model.safetensors'}: the file has" in result.stderr
    assert export(run, "--output", tmp_path / "other", "--step", 20).exit_code == 1


def test_the_best_needs_an_evaluation_between(run: Path, tmp_path: Path) -> None:
    for path in run.rglob("state.json"):
        path.write_text(json.dumps(RunState().to_json()))
    assert "spec.evaluation.everySteps" in export(run, "--output", tmp_path / "out", "--best").stderr


def test_the_best_is_found_in_the_state_of_a_newer_release(run: Path, tmp_path: Path) -> None:
    state = run / "checkpoints" / "step-000020" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"novelty": 1}))
    assert export(run, "--output", tmp_path / "out", "--best").exit_code == 0
    assert exported(tmp_path / "out") == "step 10"


def test_what_is_there_is_replaced_only_by_force(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "precious").write_text("")
    refused = export(run, "--output", output)
    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    assert (output / "precious").exists()
    assert export(run, "--output", output, "--force").exit_code == 0
    assert exported(output) == "final"
    assert not (output / "precious").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


def test_a_merge_that_fails_leaves_nothing_and_what_was_there_stays(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in: Any = ["/bin/sh"]  # cannot merge, like a Python without torch
    monkeypatch.setattr("rft_cli.commands.export.trainer_command", lambda: stand_in)
    output = tmp_path / "out"
    output.mkdir()
    (output / "precious").write_text("")
    result = export(run, "--output", output, "--merge", "--force")
    assert result.exit_code == 1
    assert f"merging {run / 'adapter'} into org/model" in result.stderr
    assert [path.name for path in output.iterdir()] == ["precious"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    result = export(tmp_path, "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "has neither an adapter nor a checkpoint" in result.stderr
