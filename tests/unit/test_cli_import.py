"""rft import: OpenAI's graders give their documented scores, and jobs of other programs become valid RFTJobs.

The cases of ``import_graders.yaml`` and the files in ``imports/`` follow the vendors' documentation.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from rft_api.graders import Grader
from rft_cli.importing import reading
from rft_cli.importing.fireworks import hub_id
from rft_cli.importing.result import Draft, ImportProblem, Options
from rft_cli.main import app
from rft_graders.builtin import builtin
from rft_graders.client import GradeRequest
from rft_graders.combine import combine, normalized
from rft_graders.formula import formula_problem, with_formulas
from rft_graders.judge import Judge
from rft_graders.shapes import Asked, adapted

HERE = Path(__file__).parent
CASES: list[dict[str, Any]] = yaml.safe_load((HERE / "import_graders.yaml").read_text())
IMPORTS = HERE / "imports"
REFUSED: dict[str, Any] = yaml.safe_load((HERE / "import_refused.yaml").read_text())
MODEL = "Qwen/Qwen2.5-7B-Instruct"
MESSAGES = [{"role": "user", "content": "Say it."}]


def imported(text: str, **options: Any) -> Draft:
    draft = reading.read(text, Options(**{"model": MODEL, **options}))
    assert reading.problems(draft) == []
    return draft


def graders_of(draft: Draft) -> list[Grader]:
    """Return the graders of an imported draft. Graders whose code is in a file get it as inline code."""
    made = []
    for grader in draft.graders:
        if "python" in grader:
            python = dict(grader["python"])
            grader = {**grader, "python": {**python, "inline": draft.files[python.pop("file")]}}
            grader["python"].pop("file")
        made.append(Grader.model_validate(grader))
    return made


def raw_score(grader: Grader, completion: str, row: dict[str, Any], judge: str | None) -> float:
    """Return the raw score that a grader gives to ``completion``. A grader's code runs in this process.

    ``judge`` is the reply of the model, if the grader is a judge.
    """
    if (function := builtin(grader)) is not None:
        return function(completion, row)
    if grader.model is not None:
        asked = Judge(grader)
        (call,) = asked.calls([GradeRequest(grader.name, completion, row)])
        assert isinstance(call.body, bytes)
        (found,) = asked.outcomes({"choices": [{"message": {"content": judge}}]}, 1)
        if isinstance(found, ValueError):
            raise found
        return found
    assert grader.python is not None
    assert grader.python.inline is not None
    space: dict[str, Any] = {}
    exec(compile(grader.python.inline, "grader", "exec"), space)
    return adapted(space[grader.python.function])(Asked(completion, row))


def reward(graders: list[Grader], completion: str, item: dict[str, Any], judge: str | None = None) -> float:
    row = {**item, "messages": MESSAGES}
    outcomes: dict[str, float | ValueError] = {}
    for index, grader in enumerate(graders):
        assert formula_problem(graders, index) == ""
        if grader.formula is not None:
            continue
        try:
            outcomes[grader.name] = normalized(raw_score(grader, completion, row, judge), grader.scale)
        except (ValueError, LookupError) as error:
            outcomes[grader.name] = ValueError(str(error))
    found = combine(graders, with_formulas(graders, outcomes)).reward
    assert found is not None
    return found


def test_there_are_cases_for_every_kind_and_metric_of_openai() -> None:
    assert len(CASES) >= 25
    text = (HERE / "import_graders.yaml").read_text()
    kinds = ("string_check", "text_similarity", "score_model", "label_model", "python", "multi")
    assert [kind for kind in kinds if f"type: {kind}" not in text] == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_an_imported_grader_gives_the_documented_scores(case: dict[str, Any]) -> None:
    draft = imported(json.dumps(case["grader"]))
    graders = graders_of(draft)
    for completion, score in case["samples"]:
        assert reward(graders, completion, case["item"], case.get("judge")) == pytest.approx(score, abs=1e-4)
    notes = "\n".join(map(str, draft.notes))
    assert [text for text in case.get("said", []) if text not in notes] == []


def test_a_judge_is_asked_what_the_template_says() -> None:
    case = next(each for each in CASES if "asked" in each)
    (grader,) = graders_of(imported(json.dumps(case["grader"])))
    (call,) = Judge(grader).calls([GradeRequest("g", "0.9", {**case["item"], "messages": MESSAGES})])
    assert isinstance(call.body, bytes)
    assert case["asked"] in json.loads(call.body)["messages"][0]["content"]


@pytest.mark.parametrize(("grader", "said"), REFUSED["graders"])
def test_what_no_grader_here_can_say_is_refused_with_its_name(grader: dict[str, Any], said: str) -> None:
    with pytest.raises(ImportProblem) as error:
        imported(json.dumps(grader))
    assert said in str(error.value)


def rft(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["import", *arguments])


def notes_of(draft: Draft) -> dict[str, str]:
    return {note.theirs: note.done for note in draft.notes}


def test_a_whole_job_of_openai_is_carried_over(tmp_path: Path) -> None:
    draft = imported((IMPORTS / "openai-job.json").read_text(), rows="/rows.jsonl")
    spec = draft.manifest()["spec"]
    assert draft.name == "order-desk"
    assert spec["model"] == {"name": MODEL}
    assert spec["dataset"] == {"uri": "/rows.jsonl"}
    assert spec["training"] == {"epochs": 10, "learningRate": 5e-5, "seed": 7}
    assert spec["sampling"] == {"numRollouts": 6}
    assert spec["evaluation"] == {"everySteps": 5, "samples": 3}
    assert spec["tracking"]["wandb"]["project"] == "orders"
    assert [(each["name"], each.get("weight", 1)) for each in spec["graders"]] == [
        ("email", 0), ("tone", 0), ("reward", 1), ("response-format", 0),
    ]  # fmt: skip
    notes = notes_of(draft)
    assert {
        "n_epochs",
        "batch_size",
        "reasoning_effort",
        "metadata",
        "response_format",
        "validation_file",
    } <= notes.keys()
    assert "--send-token-to api.openai.com" in notes["tone.model"]
    assert "RFT_SECRET_TONE_API_KEY" in notes["tone.model"]


def test_a_closed_model_must_be_replaced() -> None:
    with pytest.raises(ImportProblem, match="add --model with an open one"):
        reading.read((IMPORTS / "openai-job.json").read_text(), Options())


def test_a_job_of_another_method_is_refused() -> None:
    with pytest.raises(ImportProblem, match="only a job with"):
        imported(json.dumps({"model": "m", "training_file": "f", "method": {"type": "dpo"}}))


FIREWORKS = {"model": None, "evaluator": str(IMPORTS / "evaluator.py")}


def test_a_firectl_command_line_is_carried_over() -> None:
    draft = imported((IMPORTS / "firectl.sh").read_text(), **FIREWORKS)
    spec = draft.manifest()["spec"]
    assert draft.name == "math-tuned"
    assert spec["model"] == {"name": "meta-llama/Llama-3.1-8B-Instruct"}
    assert spec["training"] == {
        "epochs": 2, "learningRate": 5e-5, "loraRank": 16, "maxContextLength": 8192,
        "batchSizeTokens": 32768, "objective": "gspo", "klBeta": 0.001,
    }  # fmt: skip
    assert spec["sampling"] == {
        "temperature": 0.8, "topP": 0.95, "topK": 40, "maxTokens": 1024, "numRollouts": 8,
    }  # fmt: skip
    assert spec["evaluation"] == {"fraction": 0}
    assert spec["tracking"]["wandb"] == {
        "project": "math", "secretRef": {"name": "wandb", "key": "api-key"}, "entity": "team",
    }  # fmt: skip
    assert {"base-model", "dataset", "response-candidates-count", "chunk-size", "wandb-api-key"} <= notes_of(
        draft
    ).keys()
    assert "SECRET-VALUE" not in "\n".join(reading.summary(draft)) + json.dumps(draft.manifest())
    (grader,) = graders_of(draft)
    assert grader.python is not None
    assert grader.python.function == "evaluate"


def test_a_job_of_the_fireworks_api_is_carried_over() -> None:
    draft = imported((IMPORTS / "fireworks-job.json").read_text(), **FIREWORKS)
    spec = draft.manifest()["spec"]
    assert spec["model"] == {"name": "Qwen/Qwen2.5-7B-Instruct"}
    assert spec["training"]["objective"] == "dapo"
    assert spec["training"]["klBeta"] == 0.002
    assert spec["sampling"]["numRollouts"] == 4
    assert {"region", "node-count"} <= notes_of(draft).keys()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accounts/fireworks/models/llama-v3p1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("qwen3-30b-a3b", "Qwen/Qwen3-30B-A3B"),
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("my-team/llama-3-finetune", "my-team/llama-3-finetune"),
        ("accounts/me/models/llama-v3p1-8b-instruct", None),
        ("accounts/fireworks/models/deepseek-v3", None),
    ],
)
def test_only_names_of_the_vendors_catalogue_become_other_hub_ids(name: str, expected: str | None) -> None:
    assert hub_id(name) == expected


@pytest.mark.parametrize(("text", "options", "said"), REFUSED["files"])
def test_a_file_that_cannot_be_imported_says_why(text: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ImportProblem) as error:
        imported(text, **options)
    assert said in str(error.value)


def test_a_script_of_trl_is_carried_over_and_never_run() -> None:
    draft = imported((IMPORTS / "trl_script.py.txt").read_text(), model=None, folder="/scripts")
    spec = draft.manifest()["spec"]
    assert draft.name == "short-sums"
    assert spec["model"] == {"name": "Qwen/Qwen2-0.5B-Instruct"}
    assert spec["dataset"] == {"uri": "/scripts/rows.jsonl"}
    assert spec["training"] == {
        "klBeta": 0.0, "epochs": 3, "learningRate": 1e-5, "objective": "drGrpo", "schedule": "cosine",
        "loraRank": 32, "loraAlpha": 64, "loraTargets": "attention",
    }  # fmt: skip
    assert spec["sampling"] == {"temperature": 1.0, "topK": 0, "numRollouts": 8, "maxTokens": 512}
    assert spec["stop"] == {"maxSteps": 100}
    correct, short, accuracy = graders_of(draft)
    assert (correct.weight, short.weight, accuracy.weight) == (2, 1, 1)
    assert reward([correct], "it is 42", {"answer": 42}) == 1
    assert reward([correct], "it is 41", {"answer": 42}) == 0
    assert reward([short], "brief", {}) == 1
    assert reward([short], "much too long a text", {}) == 0
    assert accuracy.math is not None
    notes = "\n".join(reading.summary(draft))
    expected = (
        "learning_rate num_generations seed lora_dropout target_modules output_dir reward_funcs"
        " get_soft_overlong_punishment per_device_train_batch_size"
    )
    for theirs in expected.split():
        assert theirs in notes


def test_only_what_a_reward_function_needs_is_taken_out_of_a_script() -> None:
    draft = imported((IMPORTS / "trl_script.py.txt").read_text(), model=None)
    assert "PATTERN" in draft.files["correct.py"]
    assert "import re" in draft.files["correct.py"]
    for name in ("load_dataset", "SystemExit", "GRPO", "def short"):
        assert name not in draft.files["correct.py"]


def test_a_reward_function_of_texts_gets_texts() -> None:
    source = """
def length(prompts, completions, **kwargs):
    return [1.0 / (1 + abs(2 - len(text))) for text in completions]
GRPOTrainer(model='a/b', reward_funcs=length)
"""
    draft = imported(source, model=None)
    assert "def length(prompts, completions: list[str], **kwargs):" in draft.files["length.py"]
    assert "which then gets texts" in notes_of(draft)["length"]
    graders = graders_of(draft)
    assert (reward(graders, "ab", {}), reward(graders, "abc", {})) == (1, 0.5)


def test_a_value_at_a_bound_that_is_not_allowed_itself_is_not_carried_over() -> None:
    script = "from trl import GRPOConfig, GRPOTrainer\nargs = GRPOConfig(max_grad_norm=0.0)\n"
    script += "def right(completions, **kwargs):\n    return [1.0 for _ in completions]\n"
    draft = imported(script + "GRPOTrainer(model='gpt2', reward_funcs=right, args=args)\n")
    assert "maxGradNorm" not in draft.spec.get("training", {})
    assert "above 0; the default is used" in notes_of(draft)["max_grad_norm"]


def test_rows_that_a_script_changes_or_names_again_are_noted() -> None:
    script = "GRPOTrainer(model='a/b', reward_funcs=think_format_reward, train_dataset=rows)"
    again = imported(f"rows = load_dataset('openai/gsm8k')\nrows = rows.map(f)\n{script}", model=None)
    assert "--rows FILE" in notes_of(again)["train_dataset"]
    loaded = "load_dataset('csv', data_files='rows.csv')"
    changed = imported(f"rows = {loaded}.select(range(9))\n{script}", model=None)
    assert changed.spec["dataset"]["format"] == "csv"
    assert "methods such as map are not called" in notes_of(changed)["train_dataset"]


def test_a_ready_made_format_reward_matches_as_trls_does() -> None:
    draft = imported("GRPOTrainer(model='a/b', reward_funcs=think_format_reward)", model=None)
    assert draft.graders[0]["regex"]["fullMatch"] is True


def test_the_command_writes_a_manifest_that_is_valid_here(tmp_path: Path) -> None:
    rows = tmp_path / "train.jsonl"
    row = {"messages": MESSAGES, "email": "a@x"}
    lines = [{**row, "messages": [{"role": "user", "content": f"Q{i}"}]} for i in range(70)]
    rows.write_text("\n".join(map(json.dumps, lines)))
    source = str(IMPORTS / "openai-job.json")
    result = rft(source, "--rows", str(rows), "--model", MODEL, "--output", str(tmp_path / "job"))
    assert result.exit_code == 0, result.output
    assert "n_epochs: 20: spec.training.epochs is 10: allowed is 1 to 10" in result.stderr
    checked = CliRunner().invoke(app, ["validate", "--local", str(tmp_path / "job" / "job.yaml")])
    assert checked.exit_code == 0, checked.output


def test_the_command_overwrites_nothing_and_names_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("mine")
    source = str(IMPORTS / "openai-job.json")
    assert "exists with other content" in rft(source, "--model", MODEL, "--output", str(tmp_path)).stderr
    assert (tmp_path / "job.yaml").read_text() == "mine"
    absent = rft(str(tmp_path / "absent.json"), "--output", str(tmp_path))
    assert absent.exit_code == 2
    assert rft(source, "--rows", "absent.jsonl", "--output", str(tmp_path)).exit_code == 2
