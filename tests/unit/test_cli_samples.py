"""rft samples shows the rollouts of a run in a folder.

For a job in the cluster, test_cli_download.py has the tests.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from typer.testing import CliRunner, Result

from rft_cli.main import app
from tests.api_server import Server, served


def record(line: int, completion: str, reward: float | None, **other: Any) -> dict[str, Any]:
    return {
        "step": 4, "line": line, "messages": [{"role": "user", "content": f"What is {line} + 1?"}],
        "fields": {"answer": line + 1}, "completion": completion, "reward": reward,
        "graders": {"right": reward}, "errors": {}, "advantage": 0.5, "finishReason": "stop", "tokens": 2,
        **other,
    }  # fmt: skip


def write(folder: Path, step: int, records: list[dict[str, Any]]) -> None:
    (folder / "rollouts").mkdir(exist_ok=True)
    text = "".join(json.dumps(line | {"step": step}) + "\n" for line in records)
    data = zstandard.ZstdCompressor().compress(text.encode())
    (folder / "rollouts" / f"step-{step:06d}.jsonl.zst").write_bytes(data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, 1, [record(1, "old", 0.0)])
    write(tmp_path, 2, [record(1, "old", 0.0)])
    write(
        tmp_path,
        4,
        [
            record(7, "9", 0.0, advantage=-0.5, finishReason="length"),
            record(7, "8", 1.0),
            record(9, "?", None, advantage=None, errors={"right": "timed out"}),
            record(9, "10\x1b[31m", 1.0),
        ],
    )
    return tmp_path


def samples(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["samples", *map(str, arguments)])


def test_the_newest_step_is_shown_with_everything_that_is_known_of_a_rollout(folder: Path) -> None:
    result = samples(folder)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[:8] == [
        "step 4, row 7: 2 rollouts, mean reward 0.500",
        "  user: What is 7 + 1?",
        "  fields: answer=8",
        "  -- reward 1.000, right 1.000, advantage +0.500, stop after 2 tokens",
        "     8",
        "  -- reward 0.000, right 0.000, advantage -0.500, length after 2 tokens",
        "     9",
        "",
    ]
    assert "error of right: timed out" in result.stdout
    assert "-- reward -, right -, advantage -" in result.stdout


def test_a_rollout_of_several_turns_is_shown_turn_by_turn(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "price", "arguments": '{"name": "apple"}'}}
    turns = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "3 euros"},
    ]
    odd = [{"tool_calls": ["x", {"function": 3}]}, {"tool_calls": 7}, {"content": 5}]
    write(
        tmp_path,
        1,
        [
            record(7, "3 euros", 1.0, turns=turns, limit="maxTurns"),
            record(7, "", 0.0, turns=odd),
        ],
    )
    assert samples(tmp_path).stdout.splitlines()[3:] == [
        "  -- reward 1.000, right 1.000, advantage +0.500, stop after 2 tokens",
        "     ended by environment.maxTurns",
        '     assistant calls price with {"name": "apple"}',
        "     tool: 3",
        "     assistant: 3 euros",
        "  -- reward 0.000, right 0.000, advantage +0.500, stop after 2 tokens",
        "     None: 5",
        "",
    ]


def test_what_a_graders_code_printed_is_shown_with_its_rollout(tmp_path: Path) -> None:
    printed = {"right": "looked at 8\n\x1b[31mred\n"}
    write(tmp_path, 1, [record(7, "8", 1.0, printed=printed)])
    assert samples(tmp_path).stdout.splitlines()[4:8] == [
        "     right printed:",
        "       looked at 8",
        r"       \x1b[31mred",
        "     8",
    ]
    assert json.loads(samples(tmp_path, "-o", "json").stdout)[0]["printed"] == printed


def test_what_a_terminal_would_obey_is_shown_as_its_number(folder: Path) -> None:
    result = samples(folder, "--row", 9)
    assert "\x1b" not in result.stdout
    assert r"10\x1b[31m" in result.stdout


def test_a_step_and_a_row_are_chosen_and_the_rest_is_counted(folder: Path) -> None:
    assert "old" in samples(folder, "--step", 2).stdout
    one = samples(folder, "--row", 9).stdout
    assert "row 9" in one
    assert "row 7" not in one
    limited = samples(folder, "--limit", 1).stdout
    assert "row 9" not in limited
    assert "1 of 2 prompts of step 4" in limited


def test_json_is_what_the_file_holds(folder: Path) -> None:
    shown = json.loads(samples(folder, "-o", "json", "--row", 7).stdout)
    assert shown == [record(7, "9", 0.0, advantage=-0.5, finishReason="length"), record(7, "8", 1.0)]


def test_rollouts_of_a_release_that_knew_less_or_more_are_shown(tmp_path: Path) -> None:
    older = {"step": 1, "line": 7, "completion": "8", "graders": {"right": 1.0}}
    write(tmp_path, 1, [older])
    assert samples(tmp_path).stdout.splitlines()[:3] == [
        "step 1, row 7: 1 rollouts, mean reward -",
        "  -- reward -, right 1.000, advantage -, None after None tokens",
        "     8",
    ]
    assert json.loads(samples(tmp_path, "-o", "json").stdout) == [older]
    newer = older | {"novelty": {"of": ["a", "newer"]}}
    write(tmp_path, 1, [newer])
    assert json.loads(samples(tmp_path, "-o", "json").stdout) == [newer]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--step", "3"], 1, "has rollouts only of the steps 1 to 2, 4"),
        (["--row", "8"], 1, "sampled the rows 7, 9"),
        (["--limit", "0"], 2, "limit"),
    ],
)
def test_a_step_or_row_that_is_not_there_names_those_that_are(
    folder: Path, arguments: list[str], code: int, message: str
) -> None:
    result = samples(folder, *arguments)
    assert result.exit_code == code
    assert message in result.stderr


def test_a_folder_without_rollouts_and_a_broken_file_are_refused(tmp_path: Path) -> None:
    assert "has no rollouts" in samples(tmp_path).stderr
    assert "there is no such folder" in samples(tmp_path / "none").stderr
    write(tmp_path, 1, [{"line": 1}])
    assert "lacks one of the fields line, completion and graders" in samples(tmp_path).stderr
    (tmp_path / "rollouts" / "step-000001.jsonl.zst").write_bytes(b"not zstandard")
    result = samples(tmp_path)
    assert result.exit_code == 2
    assert "is not a file of rollouts" in result.stderr


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with served(tmp_path, monkeypatch) as server:
        yield server


def test_a_job_that_has_not_begun_has_no_folder_yet(server: Server) -> None:
    assert "has not written a run's folder yet" in samples("arithmetic").stderr
