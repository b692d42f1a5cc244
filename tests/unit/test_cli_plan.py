"""rft plan: the GPUs, the memory and the cost of a job."""

import json
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants
from typer.testing import CliRunner, Result

from rft_cli.errors import UserError
from rft_cli.local import rows as module
from rft_cli.local.rows import count
from rft_cli.main import app
from rft_planner.accelerators import ACCELERATORS
from tests.manifests import manifest


def plan(*options: str, **spec: Any) -> Result:
    text = yaml.safe_dump(manifest(**{"model": {"name": "Qwen/Qwen2.5-14B"}, **spec}))
    return CliRunner().invoke(app, ["plan", "-", *options], input=text)


def test_it_says_gpus_and_why() -> None:
    result = plan()
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("GPUs    2")
    assert "for 14.8B parameters" in result.stdout


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_machines_read_the_total_at_the_top(form: str, read: Any) -> None:
    found = read(plan("-o", form).stdout)
    assert found["gpus"] == 2
    assert "seed" not in found["effective"]


def test_another_accelerator_makes_another_plan() -> None:
    found = json.loads(plan("-o", "json", "--accelerator", "nvidia-h200-141gb").stdout)
    assert (found["gpus"], found["accelerator"]) == (1, "nvidia-h200-141gb")
    assert json.loads(plan("-o", "json", "--accelerator", "cpu").stdout)["device"] == "cpu"
    asked = plan("-o", "json", "--accelerator", "nvidia-h200-141gb", resources={"gpus": 8})
    assert json.loads(asked.stdout)["gpus"] == 1


def test_an_accelerator_that_is_none_is_refused_with_those_there_are() -> None:
    result = plan("--accelerator", "h100")
    assert result.exit_code == 1
    assert "nvidia-h100-80gb" in result.stderr


def test_an_override_is_obeyed_and_the_plan_says_what_it_would_be() -> None:
    result = plan(resources={"gpus": 1})
    assert result.stdout.startswith("GPUs    1")
    assert "without spec.resources.gpus: 2 GPUs: 2 hold each" in result.stdout
    assert result.stderr.startswith("warning: spec.resources.gpus: 1 is used; the plan for nvidia-h100-80gb")
    agreed = plan(resources={"gpus": 2})
    assert "without spec.resources.gpus" not in agreed.stdout
    assert agreed.stderr == ""


def test_without_a_size_there_is_no_plan() -> None:
    result = plan(model={"name": "org/secret"})
    assert result.exit_code == 1
    assert "spec.model.parameters" in result.stderr


CONFIG = {
    "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
    "max_position_embeddings": 32768,
}  # fmt: skip


def rows(number: int, characters: int = 400) -> str:
    row = {"messages": [{"role": "user", "content": "x" * characters}], "answer": "1"}
    return "\n".join([json.dumps(row)] * number)


def written(folder: Path, number: int, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text(rows(number))
    return path


def as_json(*options: str, **spec: Any) -> dict[str, Any]:
    result = plan("-o", "json", *options, **spec)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_rows_of_a_file_make_steps_tokens_hours_and_cost(tmp_path: Path) -> None:
    path = written(tmp_path, 1000)
    found = as_json("--dataset", str(path), resources={"pricePerGpuHour": 2})["estimate"]
    # A tenth of the rows is held out. A prompt of 400 characters counts as 100 tokens, and ChatML adds 8.
    assert found["promptTokens"] == 900 * 4 * 108
    assert found["steps"] == -(-900 // found["promptsPerStep"])
    assert found["cost"] == pytest.approx(2 * found["gpuHours"], rel=0.1)
    shown = plan("--dataset", str(path), resources={"pricePerGpuHour": 2}).stdout
    assert f"steps   about {found['steps']}" in shown
    assert "tokens  about 389k of prompts, 3.69M of completions" in shown
    assert "GPU-hours" in shown
    assert "cost    about" in shown


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_of_a_large_file_only_the_beginning_is_looked_into(
    end: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = rows(10).strip().encode().split(b"\n")
    text = b"\n".join([*lines[:6], b"not looked into", *lines[7:]]) + end
    with pytest.raises(UserError, match="rows: line 7"):
        count(BytesIO(text), "rows")
    whole = count(BytesIO(b"\n".join(lines) + end), "rows")
    monkeypatch.setattr(module, "READ_BYTES", sum(len(line) + 1 for line in lines[:6]))
    assert count(BytesIO(text), "rows") == whole == (10, whole.prompt_tokens)


def test_rows_of_a_config_map_in_the_same_file_are_counted() -> None:
    job = manifest(model={"name": "Qwen/Qwen2.5-7B"}, dataset={"configMap": {"name": "rows"}})
    data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows"}}
    text = yaml.safe_dump_all([job, {**data, "data": {"train.jsonl": rows(100)}}])
    result = CliRunner().invoke(app, ["plan", "-", "-o", "json"], input=text)
    assert json.loads(result.stdout)["estimate"]["completionTokens"] == 68 * 4 * 1024


def test_rows_of_their_own_for_the_evaluation_leave_all_others_to_train_on(tmp_path: Path) -> None:
    train, held_out = written(tmp_path, 100), written(tmp_path, 40, "evaluation.jsonl")
    options = ("--dataset", str(train), "--evaluation-dataset", str(held_out))
    found = as_json(*options, evaluation={"dataset": {"uri": "./not-here.jsonl"}})
    assert found["estimate"]["completionTokens"] == 100 * 4 * 1024
    refused = plan(*options)
    assert refused.exit_code == 2
    assert "spec.evaluation.dataset" in refused.stderr


def test_rows_that_cannot_be_read_are_a_note_and_a_named_file_that_cannot_is_an_error(tmp_path: Path) -> None:
    notes = as_json(dataset={"persistentVolumeClaim": {"claimName": "data", "path": "train.jsonl"}})["notes"]
    assert any("--dataset FILE" in note for note in notes)
    notes = as_json(dataset={"uri": "s3://bucket/rows.jsonl"})["notes"]
    assert any("s3://bucket/rows.jsonl: is not on this machine" in note for note in notes)
    missing = plan("--dataset", str(tmp_path / "no.jsonl"))
    assert missing.exit_code == 2
    assert "--dataset" in missing.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has no rows"),
        ('{"messages": "hello"}', "line 1: messages is a string, not a list"),
        (rows(1) + "\n[1]", "line 2: a row is a JSON object, not a list"),
        (rows(63), "63 rows are too few to hold out 32"),
    ],
)
def test_rows_that_the_trainer_would_refuse_are_named(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    result = plan("--dataset", str(path))
    assert result.exit_code != 0
    assert said in result.stderr


@pytest.mark.parametrize("folder", [True, False])
def test_a_config_file_counts_before_the_catalogue(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    found = as_json("--config", str(tmp_path if folder else path))
    assert found["gpus"] == 1
    assert any("for 0.494B parameters" in note for note in found["notes"])
    assert any(str(path) in note for note in found["notes"])


def test_a_model_that_is_a_folder_is_read_unless_its_size_is_stated(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert any("for 0.494B" in note for note in as_json(model={"name": str(tmp_path)})["notes"])
    stated = as_json(model={"name": str(tmp_path), "parameters": "3B"})
    assert any("for 3B" in note for note in stated["notes"])


def test_a_model_in_the_hubs_cache_is_read_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--org--own"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc")
    (cached / "snapshots" / "abc").mkdir(parents=True)
    (cached / "snapshots" / "abc" / "config.json").write_text(json.dumps(CONFIG))
    assert any("for 0.494B" in note for note in as_json(model={"name": "org/own"})["notes"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        (json.dumps({**CONFIG, "hidden_size": "896"}), "hidden_size: '896' is not a whole number"),
    ],
)
def test_a_config_that_is_none_is_refused_by_its_field(
    tmp_path: Path, content: str | None, said: str
) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    result = plan("--config", str(path))
    assert result.exit_code != 0
    assert said in result.stderr
    assert str(path) in result.stderr


def test_a_sweep_has_a_line_for_every_rank() -> None:
    found = as_json("--sweep", "training.loraRank", model={"name": "Qwen/Qwen2.5-72B"})
    assert found["field"] == "spec.training.loraRank"
    assert [line["value"] for line in found["sweep"]] == [4, 8, 16, 32]
    counts = [line["gpus"] for line in found["sweep"]]
    assert counts == sorted(counts)
    lines = plan("--sweep", "training.loraRank", model={"name": "Qwen/Qwen2.5-72B"}).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["loraRank", "4", "8", "16", "32"]


def test_a_sweep_says_why_a_value_cannot_be_planned() -> None:
    kinds = "accelerator=nvidia-t4-16gb,nvidia-h200-141gb"
    small, large = as_json("--sweep", kinds)["sweep"]
    assert (small["gpus"], small["refused"]["reason"]) == (None, "DoesNotFit")
    assert large["gpus"] == 1
    shown = plan("--sweep", kinds).stdout.splitlines()
    assert "are usable" in shown[1]
    assert plan("--sweep", "accelerator=nvidia-t4-16gb").exit_code == 1


def test_a_sweep_over_accelerators_takes_all_of_the_catalogue_and_no_stated_count() -> None:
    found = as_json("--sweep", "accelerator", resources={"gpus": 8, "pricePerGpuHour": 2})["sweep"]
    assert [line["value"] for line in found] == list(ACCELERATORS)
    assert {line["gpus"] for line in found if line["value"] == "nvidia-h200-141gb"} == {1}


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("sampling.numRollouts", [2, 3, 4, 5, 6, 7, 8]),
        # From 1/4 to 4 times the default, without values up to maxTokens, and without values above
        # batchSizeTokens.
        ("training.maxContextLength", [4096, 8192, 16384]),
        ("training.batchSizeTokens", [8192, 16384, 32768, 65536, 131072]),
        ("training.objective", ["grpo", "dapo", "gspo", "drGrpo", "cispo"]),
        ("sampling.maxTokens=256, 512", [256, 512]),
    ],
)
def test_values_are_the_usual_ones_or_those_that_are_named(field: str, values: list[Any]) -> None:
    found = as_json("--sweep", field, model={"name": "Qwen/Qwen2.5-7B"})["sweep"]
    assert [line["value"] for line in found] == values


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("training.loraRank=8,64", "spec.training.loraRank: 64"),
        ("sampling.numRollouts=9", "allowed is 2 to 8"),
        ("training.maxContextLength=1024", "maxContextLength"),
        ("training.lorarank", "did you mean spec.training.loraRank"),
        ("training", "is no field of the spec whose value is a number"),
        ("status.phase", "is no field of the spec whose value is a number, a text, true or false"),
        ("model.name", "--sweep model.name=v1,v2"),
    ],
)
def test_a_sweep_that_cannot_be_made_is_refused_with_the_fix(asked: str, said: str) -> None:
    result = plan("--sweep", asked)
    assert result.exit_code != 0
    assert said in result.stderr
    assert not result.stdout


def test_a_hub_that_does_not_answer_is_told_with_the_ways_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    result = plan("--hub", model={"name": "org/secret"})
    assert result.exit_code == 2
    for way in ("org/secret", "HF_TOKEN", "--config FILE"):
        assert way in result.stderr


def test_without_the_hubs_client_only_the_hub_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert plan().exit_code == 0
    assert "pip install huggingface_hub" in plan("--hub").stderr


DEFAULTS = """
replicas: 1
jobDefaults:
  resources: {tolerations: [{key: pool}]}
  accelerators:
    nvidia-h100-80gb: {resources: {cpu: "7"}}
    cpu: {resources: {cpu: "3"}}
"""


def with_defaults(tmp_path: Path, text: str, *options: str) -> Result:
    values = tmp_path / "values.yaml"
    values.write_text(text)
    return plan("--defaults", str(values), *options)


def test_the_platforms_defaults_are_used_and_shown(tmp_path: Path) -> None:
    shown = with_defaults(tmp_path, DEFAULTS).stdout.splitlines()
    on_h100 = "jobDefaults.accelerators.nvidia-h100-80gb"
    assert "CPU     7" in shown
    assert f"= spec.resources.cpu: 7, by {on_h100}.resources.cpu" in shown
    found = json.loads(with_defaults(tmp_path, DEFAULTS, "-o", "json", "--accelerator", "cpu").stdout)
    assert found["cpu"] == "3"
    assert [each["path"] for each in found["effective"]["inherited"]] == [
        "spec.resources.cpu",
        "spec.resources.tolerations",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("replicas: 1\n", "values.yaml: needs the key jobDefaults once"),
        ("jobDefaults: {resources: {cpu: 4}}\n", "jobDefaults.resources.cpu: 4 is not a text"),
        ("jobDefaults: [\n", "values.yaml: "),
    ],
)
def test_a_wrong_file_of_defaults_is_refused(tmp_path: Path, text: str, said: str) -> None:
    result = with_defaults(tmp_path, text)
    assert result.exit_code != 0
    assert said in result.stderr
    assert not result.stdout
