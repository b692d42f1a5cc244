"""rft grade runs a job's graders on the rows' answers, on given completions and on recorded rollouts.

The graders run in workers, as in a local run.
"""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from rft_cli.main import app
from rft_run.folder import RunFolder
from rft_run.rollouts import RolloutRecord, as_bytes, compressed
from tests.manifests import manifest
from tests.trainer.grader_service import Answer, serving

CODE = "def grade(completion, row):\n    return 1 / len(completion.split())"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    rows = [
        {
            "messages": [{"role": "user", "content": f"What is {i} + 1?"}],
            "answer": i + 1 if i else "one 1 or 2",
        }
        for i in range(4)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    document = manifest(
        dataset={"uri": "./train.jsonl"},
        graders=[
            {"name": "right", "exactMatch": {}},
            {"name": "own", "onError": "fail", "python": {"inline": CODE}},
        ],
    )
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def grade(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["grade", *map(str, arguments)])
    return result.exit_code, result.output


def test_without_completions_each_row_s_own_answer_is_graded_and_what_is_not_1_is_said(job: Path) -> None:
    code, output = grade(job)
    assert code == 0, output
    assert "row 2: reward 1.000 (right 1.000, own 1.000)" in output
    assert "right: mean 1.000 of 4" in output
    assert output.rstrip().endswith("1 of 4 gold answers do not get the score 1 from own: rows 1")


def test_one_completion_of_a_row_is_graded_and_an_error_is_shown_and_exit_code_1(job: Path) -> None:
    code, output = grade(job, "--row", 2, "--completion", "so 2")
    assert (code, "row 2: reward 0.250 (right 0.000, own 0.500)" in output) == (0, True), output
    code, output = grade(job, "--row", 2, "--completion", " ")
    assert code == 1
    assert "own failed: ZeroDivisionError" in output


def test_a_file_of_completions_is_graded_by_order_and_by_line(job: Path, tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    path.write_text('"no"\n{"line": 4, "completion": "4"}\n')
    _, output = grade(job, "--completions", path)
    assert "row 1: reward 0.500" in output
    assert "row 4: reward 1.000" in output
    path.write_text('{"line": 9, "completion": "4"}\n')
    assert "has no row in line 9" in grade(job, "--completions", path)[1]


@pytest.mark.parametrize("line", ["true", "[1]", '"1"', "1.5"])
def test_a_line_that_is_no_whole_number_is_refused(job: Path, tmp_path: Path, line: str) -> None:
    path = tmp_path / "said.jsonl"
    path.write_text(f'{{"line": {line}, "completion": "4"}}\n')
    code, output = grade(job, "--completions", path)
    assert code == 2
    assert f"line is {line}, not a whole number" in " ".join(output.split())


def test_a_run_s_recorded_rollouts_are_graded_without_the_dataset(job: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    path = folder.rollouts_of(3)
    path.parent.mkdir(parents=True)
    record = RolloutRecord(line=7, messages=[], fields={"answer": "4"}, completion="4", graders={})
    path.write_bytes(compressed(as_bytes([record])))
    (tmp_path / "train.jsonl").unlink()
    code, output = grade(job, "--from", folder.path)
    assert code == 0, output
    assert "row 7: reward 1.000" in output
    assert "has no rollouts of step 2" in grade(job, "--from", folder.path, "--step", 2)[1]


def test_options_that_exclude_each_other_are_refused(job: Path, tmp_path: Path) -> None:
    assert grade(job, "--row", 1)[0] == 2
    assert "exclude each other" in grade(job, "--from", tmp_path, "--row", 1, "--completion", "x")[1]


def test_code_that_does_not_load_is_said(job: Path) -> None:
    job.write_text(job.read_text().replace("def grade", "def other"))
    code, output = grade(job)
    assert code == 1
    assert "grader own does not load" in output


def test_what_a_grader_prints_is_shown_without_what_a_terminal_would_execute(job: Path) -> None:
    document = yaml.safe_load(job.read_text())
    document["spec"]["graders"][1]["python"]["inline"] = 'print("seen", "\x1b[2J")\n' + CODE.replace(
        "    return", '    print("graded")\n    return'
    )
    job.write_text(yaml.safe_dump(document))
    code, output = grade(job, "--row", 2, "--completion", "so 2")
    assert code == 0, output
    assert "  own printed:\n    graded" in output
    assert "\x1b" not in output


def test_a_judges_token_leaves_the_shell_only_for_a_server_that_the_option_names(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RFT_SECRET_WEB_KEY", "s3cr3t-value")
    with serving(lambda asked: Answer({"scores": [1] * len(asked.body["items"])})) as web:
        document = yaml.safe_load(job.read_text())
        asked = {"url": web.url, "secretRef": {"name": "judge", "key": "key"}}
        document["spec"]["graders"] = [{"name": "web", "http": asked}]
        job.write_text(yaml.safe_dump(document))
        code, output = grade(job)
        assert (code, web.asked) == (1, [])
        assert "would send RFT_SECRET_WEB_KEY to" in output
        code, output = grade(job, "--send-token-to", "127.0.0.1")
        assert code == 0, output
        assert {request.headers["Authorization"] for request in web.asked} == {"Bearer s3cr3t-value"}
    assert "s3cr3t-value" not in output


def test_the_field_with_the_gold_answer_can_be_named(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"Say {i}."}], "solution": str(i)} for i in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = tmp_path / "job.yaml"
    made = CliRunner().invoke(
        app,
        ["new", str(job), "--rows", str(tmp_path / "rows.jsonl"), "--grader", "python",
         "--answer", "solution", "--model", "HuggingFaceTB/SmolLM2-135M-Instruct"],
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert f"rft grade {job} --answer solution, then" in made.output.replace("\n", " ")
    code, output = grade(job)
    assert (code, "name the field by --answer" in " ".join(output.split())) == (1, True), output
    code, output = grade(job, "--answer", "solution")
    assert (code, "all 3 gold answers get the score 1" in output) == (0, True), output
    code, output = grade(job, "--answer", "solution", "--row", 1, "--completion", "0")
    assert (code, "--answer is only for gold answers" in output) == (2, True), output
