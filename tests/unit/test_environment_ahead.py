"""Mistakes in the source of an environment are found before a run. The source is not executed."""

from typing import Any

import pytest

from rft_api.job import RFTJobSpec
from rft_graders import ahead
from tests.manifests import manifest

CLASS = "class Environment:\n    def reset(self, **row): ...\n    def get_reward(self): return 0.0\n"


def said(source: str | None, code: dict[str, str] | None = None, **python: Any) -> list[str]:
    given = {"inline": source} if source is not None else {"configMap": {"name": "shop"}}
    document = manifest(environment={"python": {**given, **python}})
    spec = RFTJobSpec.model_validate(document["spec"])
    return [str(problem) for problem in ahead.problems(spec, code or {})]


def test_a_class_is_accepted_also_where_it_is_imported_or_made() -> None:
    assert said(CLASS) == []
    assert said("from games import Environment") == []
    assert said("from games import *") == []
    assert said("Environment = type('Environment', (), {})") == []
    assert said(None) == []


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("class Environment", "is not valid Python (line 1)"),
        ("class Shop: ...", "defines no class Environment; it defines Shop: set className to one of them"),
        ("x = 1", "defines no class Environment"),
        ("def Environment(): ...", "is a function, not a class"),
    ],
)
def test_a_source_without_the_class_is_named_with_what_it_defines(source: str, part: str) -> None:
    (found,) = said(source)
    assert part in found
    assert found.startswith("spec.environment.python")
    assert said(None, {"environment": source}) == [found]


def test_another_name_of_the_class_is_looked_for() -> None:
    assert said("class Shop: ...", className="Shop") == []
