"""The code examples in docs/environments.md work, and its manifest is valid."""

import re
from pathlib import Path
from typing import Any

import yaml

from rft_api.environment import Environment
from rft_api.graders import GRADER_KINDS
from rft_api.loader import load_file
from rft_graders.hosted import MAX_TEXT_BYTES, Hosted

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "environments.md").read_text(encoding="utf-8")


def block(language: str, number: int = 0) -> str:
    return str(re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)[number])


def test_the_class_is_an_environment() -> None:
    namespace: dict[str, Any] = {}
    exec(block("python"), namespace)
    hosted = Hosted(namespace["Environment"])
    row = {"prices": {"apple": 3.0, "pear": 2.5}, "wanted": "pear", "messages": []}
    assert hosted.act({"do": "reset", "row": row}) == {"text": " The goods are: apple, pear."}
    (tool,) = hosted.act({"do": "describe"})["tools"]
    assert tool["function"]["parameters"]["properties"]["name"]["description"] == "The name of the item."
    assert hosted.act({"do": "call", "name": "price", "arguments": {"name": "pear"}}) == {"text": "2.5"}
    assert hosted.act({"do": "reward"}) == {"reward": 1.0}


def test_the_agent_plays_its_rollouts_itself() -> None:
    namespace: dict[str, Any] = {}
    exec(block("python", 1), namespace)
    hosted = Hosted(namespace["Environment"])
    assert hosted.act({"do": "describe"}) == {"tools": [], "replies": False, "agent": True}
    assert hosted.act({"do": "reset", "row": {"question": "1+1", "answer": "2", "messages": []}}) == {}


def test_the_manifest_is_valid() -> None:
    spec = yaml.safe_load(block("yaml"))["spec"]
    assert Environment.model_validate(spec["environment"]).as_grader().kind in GRADER_KINDS


def test_the_limit_of_a_text_is_the_real_one() -> None:
    assert f"longer than {MAX_TEXT_BYTES // 1024} KiB" in DOCS


def test_the_game_of_the_example_rewards_a_quick_find() -> None:
    documents = [one.body for one in load_file(ROOT / "examples" / "guessing.yaml")]
    code = next(
        body["data"]["environment.py"] for body in documents if "environment.py" in body.get("data", {})
    )
    namespace: dict[str, Any] = {}
    exec(code, namespace)

    def reward(*guesses: str) -> float:
        hosted = Hosted(namespace["Environment"])
        hosted.act({"do": "reset", "row": {"secret": 8, "messages": []}})
        said = [hosted.act({"do": "reply", "text": guess}).get("text") for guess in guesses]
        assert (said[-1] is None) == (guesses[-1] == "8")
        return float(hosted.act({"do": "reward"})["reward"])

    assert reward("8") == 1.0
    assert reward("7", "8") == 0.2 + 0.8 / 2
    assert reward("7", "it is 8", "8") < reward("7", "9", "8")
    assert reward("7", "6") == 0.2
    assert reward("is it 7?", "6") == 0.1
    assert reward("I do not know") == 0.0
