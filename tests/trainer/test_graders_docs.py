"""The examples and claims in docs/graders.md are correct."""

import ast
import re
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from rft_api.graders import GRADER_KINDS, Grader
from rft_graders.scorer import Scorer
from rft_graders.template import row_fields
from rft_graders.types import GradeItem

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "graders.md").read_text(encoding="utf-8")


def test_every_kind_of_grader_is_described() -> None:
    described = set(re.findall(r"^\| \[`(\w+)`\]", DOCS, re.MULTILINE))
    assert described == {Grader.model_fields[kind].alias for kind in GRADER_KINDS}


def test_the_tests_named_in_the_table_exist() -> None:
    there = {
        node.name
        for file in (ROOT / "tests" / "trainer").glob("test_graders_*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    named = set(re.findall(r"`(test_\w+)`", DOCS))
    assert len(named) > 20
    assert named <= there


def test_the_graders_in_the_examples_are_valid() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)
    graders = [Grader.model_validate(one) for block in blocks for one in yaml.safe_load(block)["graders"]]
    fields = {grader.name: row_fields(grader.model.prompt) for grader in graders if grader.model is not None}
    assert fields == {"helpful": ["answer"]}
    assert [grader.name for grader in graders if grader.http is not None] == ["tests-pass"]


def test_the_example_service_returns_scores() -> None:
    shown = re.search(r"```python\n(from http.*?)```", DOCS, re.DOTALL)
    assert shown is not None
    namespace: dict[str, Any] = {"__name__": "shown"}
    exec(shown[1], namespace)
    namespace["Grader"].log_message = lambda *_: None
    with ThreadingHTTPServer(("127.0.0.1", 0), namespace["Grader"]) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        item = GradeItem([{"role": "user", "content": "6 x 7?"}], "It is 42.", {"answer": "42"})
        try:
            with Scorer([Grader.model_validate({"name": "shown", "http": {"url": url}})]) as scorer:
                assert scorer.score([item])[0].reward == 1.0
        finally:
            server.shutdown()
            thread.join()
