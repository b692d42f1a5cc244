"""rft env check plays rollouts of an environment in a worker process.

The texts of the option ``--say`` replace the language model's answers.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from rft_cli.main import app
from tests.manifests import manifest

ROOT = Path(__file__).parents[2]
SHOP = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "environments.md").read_text(), re.DOTALL)[0]
ASK = '<tool_call>{"name": "price", "arguments": {"name": "%s"}}</tool_call>'


def job(folder: Path, **environment: Any) -> str:
    row = {"prices": {"apple": 3}, "wanted": "apple", "messages": [{"role": "user", "content": "Buy."}]}
    (folder / "train.jsonl").write_text(f"{json.dumps(row)}\n" * 4)
    body = {"python": {"configMap": {"name": "shop", "key": "environment.py"}}, **environment}
    document = manifest(dataset={"uri": "./train.jsonl"}, graders=[], environment=body)
    code = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "shop"},
        "data": {"environment.py": SHOP},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump_all([document, code]))
    return str(folder / "job.yaml")


def test_the_turns_of_a_script_are_shown_with_the_reward(tmp_path: Path) -> None:
    said = ["--say", ASK % "apple", "--say", "3 euros", "--rows", "2"]
    result = CliRunner().invoke(app, ["env", "check", job(tmp_path), *said])
    assert result.exit_code == 0, result.output
    assert 'tool {"name": "price", "description": "Return the price of an item."' in result.output
    assert "row 1: reward 1, " in result.output
    assert 'assistant calls price with {"name": "apple"}' in result.output
    assert "tool: 3" in result.output
    assert "2 rows, 0 with a failure" in result.output


def test_the_text_of_reset_belongs_to_the_last_message_of_the_user(tmp_path: Path) -> None:
    file = job(tmp_path)
    (tmp_path / "greets.py").write_text(
        SHOP.replace("def reset(self, ", "def reset(self, **row): return ' Now.'\n\n    def _before(self, ")
    )
    override = ["--grader", f"environment={tmp_path / 'greets.py'}", "--say", "3", "--rows", "1"]
    result = CliRunner().invoke(app, ["env", "check", file, *override])
    assert "user: Buy. Now." in result.output


def test_what_fails_is_exit_code_1(tmp_path: Path) -> None:
    file = job(tmp_path)
    wrong = CliRunner().invoke(app, ["env", "check", file, "--say", ASK % "pear", "--say", "<tool_call>"])
    assert wrong.exit_code == 1
    assert 'tool: {"error": "KeyError: \'pear\'"}' in wrong.output
    assert 'tool: {"error": "the tool call does not end with </tool_call>"}' in wrong.output
    (tmp_path / "broken.py").write_text(SHOP.replace("return 1.0", "return self.nothing or 1.0"))
    override = ["--grader", f"environment={tmp_path / 'broken.py'}", "--say", ASK % "apple"]
    broken = CliRunner().invoke(app, ["env", "check", file, *override])
    assert broken.exit_code == 1
    assert "the environment failed: AttributeError" in broken.output


def test_a_worker_that_ends_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        f"{SHOP}\n    def reset(self, **row):\n        import os\n        os._exit(1)\n"
    )
    override = ["--grader", f"environment={tmp_path / 'broken.py'}", "--say", ASK % "apple"]
    result = CliRunner().invoke(app, ["env", "check", job(tmp_path), *override])
    assert result.exit_code == 1, result.output
    assert "ended" in result.output


@pytest.mark.parametrize(
    ("code", "said"), [("class Environment: ...", "has no method reset"), ("x = ", "SyntaxError")]
)
def test_code_that_does_not_load_is_named(tmp_path: Path, code: str, said: str) -> None:
    (tmp_path / "broken.py").write_text(code)
    override = ["--grader", f"environment={tmp_path / 'broken.py'}"]
    result = CliRunner().invoke(app, ["env", "check", job(tmp_path), *override])
    assert result.exit_code == 1
    assert said in result.output


def test_a_job_without_an_environment_is_said_to_have_none(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"messages": [{"role": "user", "content": "1?"}], "answer": 1}\n')
    document = manifest(dataset={"uri": "./train.jsonl"})
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(document))
    result = CliRunner().invoke(app, ["env", "check", str(tmp_path / "job.yaml")])
    assert result.exit_code == 1
    assert "spec.environment: is not set" in result.output
