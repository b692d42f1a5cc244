"""rft new writes a valid manifest from rows and options, and prints what it found in the rows."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from rft_cli.errors import UserError
from rft_cli.main import app
from rft_cli.new_files import write_new
from rft_cli.render.console import asked


def rft(*arguments: object, text: str | None = None) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)), input=text)


def new(folder: Path, rows: Path, *options: object) -> Result:
    return rft("new", folder / "sums.yaml", "--rows", rows, "--model", "Qwen/Qwen2.5-0.5B-Instruct", *options)


def lines(path: Path, rows: Iterable[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def spec(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "sums.yaml").read_text())["spec"]
    return found


def sums(count: int = 70) -> list[dict[str, Any]]:
    return [{"prompt": f"What is {i} + 1?", "answer": i + 1} for i in range(count)]


def test_rows_with_numbers_get_a_numeric_grader_and_a_valid_manifest(tmp_path: Path) -> None:
    result = new(tmp_path, lines(tmp_path / "rows.jsonl", sums()))
    assert result.exit_code == 0, result.output
    assert "rows: 70 with 70 distinct prompts; fields beside the prompt: answer" in result.stdout
    assert "prompts: about" in result.stdout
    assert "maxTokens 512 cuts none" in result.stdout
    assert spec(tmp_path)["dataset"] == {"uri": "./rows.jsonl"}
    assert spec(tmp_path)["graders"] == [{"name": "correct", "numeric": {"field": "answer"}}]
    checked = rft("validate", "--local", tmp_path / "sums.yaml")
    assert checked.exit_code == 0, checked.output
    assert f"{tmp_path / 'sums.yaml'}: RFTJob sums: OK" in checked.stdout


@pytest.mark.parametrize(
    ("answer", "kind"),
    [("Paris", "exactMatch"), ("A long answer. " * 20, "textSimilarity"), ("1,234", "numeric")],
)
def test_the_answers_decide_the_kind_of_grader(tmp_path: Path, answer: str, kind: str) -> None:
    rows = [{"messages": [{"role": "user", "content": f"Q{i}"}], "solution": answer} for i in range(70)]
    assert new(tmp_path, lines(tmp_path / "rows.jsonl", rows)).exit_code == 0
    assert spec(tmp_path)["graders"] == [{"name": "correct", kind: {"field": "solution"}}]


def test_columns_of_a_csv_file_are_named(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text(
        "question,note,label\n" + "".join(f"Q{i},,{'yes' if i % 2 else 'no'}\n" for i in range(70))
    )
    result = new(tmp_path, rows)
    assert result.exit_code == 0, result.output
    assert spec(tmp_path)["dataset"] == {
        "uri": "./rows.csv", "format": "csv", "columns": {"prompt": "question"},
    }  # fmt: skip
    assert rft("validate", "--local", tmp_path / "sums.yaml").exit_code == 0


def test_long_and_many_names_of_columns_are_cut_in_a_message(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("a" * 200_000 + "".join(f",c{number}" for number in range(30)) + "\n1,2\n")
    result = new(tmp_path, rows)
    assert result.exit_code == 1, result.stderr[:1000]
    assert "neither messages nor prompt; its columns are aaaa" in result.stderr
    assert "aaa…, c0, c1," in result.stderr
    assert "c18 and 11 others; name the column of the prompt by --prompt" in result.stderr
    assert len(result.stderr) < 1000


def test_what_max_tokens_would_cut_is_said(tmp_path: Path) -> None:
    rows = [{**row, "answer": "word " * (200 if i < 7 else 2)} for i, row in enumerate(sums())]
    result = new(tmp_path, lines(tmp_path / "rows.jsonl", rows), "--max-tokens", 64)
    assert "answer: about 2 to 250 (median 2) tokens; maxTokens 64 would cut 7 answers" in result.stdout


def test_few_prompts_turn_the_evaluation_off_and_say_so(tmp_path: Path) -> None:
    result = new(tmp_path, lines(tmp_path / "rows.jsonl", sums(10)))
    assert "10 distinct prompts are fewer than 64" in result.stderr
    assert spec(tmp_path)["evaluation"] == {"fraction": 0}
    assert rft("validate", "--local", tmp_path / "sums.yaml").exit_code == 0


def test_a_python_grader_comes_with_code_to_change(tmp_path: Path) -> None:
    assert new(tmp_path, lines(tmp_path / "rows.jsonl", sums()), "--grader", "python").exit_code == 0
    space: dict[str, Any] = {}
    exec((tmp_path / "reward.py").read_text(), space)
    assert space["grade"]("It is 7.", {"answer": 7}) == 1
    assert space["grade"]("It is 8.", {"answer": 7}) == 0
    assert rft("validate", "--local", tmp_path / "sums.yaml").exit_code == 0


@pytest.mark.parametrize(
    ("code", "function"),
    [
        ("def grade(completion, row):\n    return 1\n", None),
        ("def reward(completion, row):\n    return 1\n", "reward"),
        ("def _numbers(text):\n    return []\ndef mine(completion, row):\n    return 1\n", "mine"),
        ("def helper():\n    return 1\ndef score(completion, row):\n    return helper()\n", "score"),
        ("def grade(:", None),
        ("x = 1\n", None),
    ],
)
def test_the_function_of_code_that_exists_is_found(tmp_path: Path, code: str, function: str | None) -> None:
    (tmp_path / "reward.py").write_text(code)
    assert new(tmp_path, lines(tmp_path / "rows.jsonl", sums()), "--grader", "python").exit_code == 0
    expected = {"file": "reward.py"} | ({"function": function} if function else {})
    assert spec(tmp_path)["graders"][0]["python"] == expected
    assert (tmp_path / "reward.py").read_text() == code


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([{"a": "x"}], (), "its columns are a; name the column of the prompt by --prompt"),
        ([{"prompt": "x"}], ("--prompt", "q"), "has no column 'q'; it has prompt"),
        ([{"prompt": "x"}], (), "no field has a text or number in each row"),
        ([{"prompt": "x", "a": "1", "b": "2"}], (), "--answer: is missing"),
        ([{"prompt": "x", "answer": 1}], ("--answer", "b"), "number in each row; such fields are answer"),
        ([{"prompt": "x", "answer": 1}], ("--model", "gpt-4o"), "closed model"),
        ([{"prompt": "x", "answer": 1}], ("--name", "My Job"), "write my-job"),
        ([["x"]], (), "its first line is no JSON object"),
        ([{"prompt": 5, "answer": 1}], (), "line 1"),
        ([], (), "its first line is no JSON object"),
    ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_named_with_the_option(
    tmp_path: Path, rows: list[object], options: tuple[str, ...], said: str
) -> None:
    result = new(tmp_path, lines(tmp_path / "rows.jsonl", rows), *options)
    assert result.exit_code in (1, 2)
    assert said in result.stderr
    assert not (tmp_path / "sums.yaml").exists()


def test_nothing_is_overwritten_and_nothing_is_asked_without_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "sums.yaml").write_text("mine")
    assert "exists; name a new file" in new(tmp_path, lines(tmp_path / "rows.jsonl", sums())).stderr
    assert "--rows: is missing" in rft("new", tmp_path / "other.yaml").stderr
    assert "cannot be read" in new(tmp_path / "x", tmp_path / "absent.jsonl").stderr


def test_on_a_terminal_it_asks_for_what_no_option_says(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    console = "rft_cli.render.console"
    monkeypatch.setattr(f"{console}.sys.stdin", Terminal())
    monkeypatch.setattr(f"{console}.sys.stdout", Terminal())
    monkeypatch.setattr(f"{console}.typer.prompt", lambda question, default: f"{question}={default}")
    assert asked("Model", "--model", "m") == "Model=m"


@pytest.mark.parametrize(
    "prompt", ["one\u2028two", "one\u0085two", "x" * (2 << 20)], ids=["U+2028", "U+0085", "2 MiB"]
)
def test_a_line_ends_only_at_a_line_feed_and_may_be_long(tmp_path: Path, prompt: str) -> None:
    rows = tmp_path / "rows.jsonl"
    body = [json.dumps({"prompt": f"{prompt} {i}", "answer": i}, ensure_ascii=False) for i in range(3)]
    rows.write_text("\n\n" + "".join(f"{line}\n" for line in body))
    result = new(tmp_path, rows)
    assert result.exit_code == 0, result.output
    assert "rows: 3 with 3 distinct prompts" in result.stdout


@pytest.mark.parametrize("content", [b"\xff\xfe", b"mine"], ids=["no UTF-8", "text"])
def test_files_with_other_content_are_kept_and_none_is_written(tmp_path: Path, content: bytes) -> None:
    old = tmp_path / "b.yaml"
    old.write_bytes(content)
    with pytest.raises(UserError, match="exists with other content"):
        write_new({tmp_path / "a.yaml": "new", old: "new"})
    assert list(tmp_path.iterdir()) == [old]
    write_new({tmp_path / "c" / "a.yaml": "new"})
    write_new({tmp_path / "c" / "a.yaml": "new"})
    for taken in (old / "x.yaml", tmp_path / "c"):
        with pytest.raises(UserError, match=r"(cannot be written|exists)"):
            write_new({taken: "new"})


def test_a_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = rft(
        "new",
        tmp_path / "file" / "x.yaml",
        "--rows",
        lines(tmp_path / "rows.jsonl", sums()),
        "--model",
        "a/b",
    )
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
