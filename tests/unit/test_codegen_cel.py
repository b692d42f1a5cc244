"""The rules in CEL use only features of Kubernetes 1.25. The lint reports every feature that 1.25 lacks."""

from typing import Any

import pytest

from rft_api.cel import Cel, escape
from rft_codegen import __main__ as export
from rft_codegen.cel_lint import lint
from rft_codegen.crd import object_schema
from rft_codegen.validations import all_texts, node_at, place

SCHEMA = object_schema()
OBJECT: dict[str, Any] = {
    "type": "object",
    "required": ["count"],
    "properties": {
        "count": {"type": "integer"},
        "share": {"type": "number", "default": 0.5},
        "name": {"type": "string", "default": "a"},
        "kind": {"type": "string", "enum": ["a", "b"], "default": "a"},
        "names": {"type": "array", "items": {"type": "string"}, "default": []},
        "few": {"type": "array", "maxItems": 4, "items": {"type": "string"}, "default": []},
        "parts": {
            "type": "array",
            "maxItems": 4,
            "items": {"type": "object", "properties": {"weight": {"type": "number"}}},
            "default": [],
        },
        "whole": {
            "type": "object",
            "default": {},
            "properties": {"names": {"type": "array", "items": {"type": "string"}}},
        },
        "labels": {"type": "object", "additionalProperties": {"type": "string"}, "default": {}},
        "maybe": {"type": "object", "properties": {"function": {"type": "boolean"}}},
    },
}


@pytest.mark.parametrize("text", list(all_texts()), ids=lambda text: f"{text.where}: {text.message[:40]}")
def test_every_rule_in_cel_passes_the_lint(text: Cel) -> None:
    assert lint(text, SCHEMA) == []


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        (
            "quantity('1Gi').isGreaterThan(quantity('2Gi'))",
            "quantity is not a CEL function of Kubernetes 1.25",
        ),
        ("'%d'.format([self.count]) == '1'", "format is not a CEL function of Kubernetes 1.25"),
        ("sets.contains(self.few, ['a'])", "sets is not known to Kubernetes 1.25"),
        ("ip('::1').family() == 6", "ip is not a CEL function of Kubernetes 1.25"),
        ("self.few.transformList(i, v, v) == []", "transformList is not a CEL function of Kubernetes 1.25"),
        ("self.few.all(i, v, i < 3)", "Kubernetes 1.25 has no all with two variables"),
        ("self.?maybe.hasValue()", "Kubernetes 1.25 has no optional values in CEL"),
        ("self.few[?0] == self.few[0]", "Kubernetes 1.25 has no optional values in CEL"),
        ("optional.of(self.count).hasValue()", "optional is not known to Kubernetes 1.25"),
        ("self.count < self.share", "Kubernetes 1.25 cannot compare a whole number with a fraction"),
        ("self.share > 1", "Kubernetes 1.25 cannot compare a whole number with a fraction"),
        ("self.missing == 1", "the schema has no field self.missing"),
        ("self.parts.exists(p, p.weight > 0.0)", "p.weight may be absent; test it with has(p.weight)"),
        ("self.parts.all(p, has(p.size))", "the schema has no field p.size"),
        ("self.maybe.__function__", "self.maybe may be absent; test it with has(self.maybe)"),
        ("has(self.maybe) && self.maybe.__function__", "self.maybe.__function__ may be absent"),
        ("has(self.maybe) && self.maybe.function", "the schema has no field self.maybe.function"),
        ("self.name == 'a'", "self.name needs maxLength"),
        ("self.name.startsWith('a')", "self.name needs maxLength"),
        ("self.names.exists(x, x == 'a')", "self.names needs maxItems"),
        ("self.whole == oldSelf.whole", "self.whole.names needs maxItems"),
        ("self.labels.all(key, key != '')", "self.labels needs maxProperties"),
        ("self.count == 1 # one", "'#' is not valid in CEL"),
    ],
)
def test_the_lint_refuses_cel_that_1_25_refuses(expression: str, complaint: str) -> None:
    found = lint(Cel("", expression, "Says what is wrong."), OBJECT)
    assert any(complaint in problem for problem in found), found


@pytest.mark.parametrize(
    "expression",
    [
        "self.count > 1 && self.share < 0.5 && double(self.count) < self.share",
        "self.kind == 'a' || self.kind in ['b']",
        "!has(self.maybe) || !has(self.maybe.__function__) || self.maybe.__function__",
        "self.few.all(x, x.matches('^[a-z]+$')) && self.few.map(x, x != '', size(x)).sum() < 9",
        "'optional text with .? in it' != self.kind",
    ],
)
def test_the_lint_accepts_cel_that_1_25_accepts(expression: str) -> None:
    assert lint(Cel("", expression, "Says what is wrong."), OBJECT) == []


def test_a_message_is_one_line() -> None:
    assert "one line" in lint(Cel("", "self.count > 1", "Two\nlines"), OBJECT)[0]
    assert "one line" in lint(Cel("", "self.count > 1", ""), OBJECT)[0]


@pytest.fixture(scope="module", autouse=True)
def generated() -> None:
    """Generate the files once before the tests, because each test may use only 2 s of CPU time."""
    export.generated_files()


def test_the_check_of_the_generated_files_runs_the_lint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = Cel("spec", "quantity('1Gi').isInteger()", "Says what is wrong.")
    monkeypatch.setattr(export, "all_texts", lambda: [wrong])
    assert export.main(["--check"]) == 1
    assert "quantity is not a CEL function of Kubernetes 1.25" in capsys.readouterr().err


def test_a_rule_is_added_to_the_schema_at_its_path() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"few": dict(OBJECT["properties"]["few"])}}
    place(schema, [Cel("few[]", "self != ''", "Say something."), Cel("", "true", "Always.")])
    rule = {"rule": "self != ''", "message": "Say something."}
    assert node_at(schema, "few[]")["x-kubernetes-validations"] == [rule]
    assert schema["x-kubernetes-validations"][0]["rule"] == "true"
    with pytest.raises(KeyError):
        place(schema, [Cel("fewer", "true", "Nowhere.")])


@pytest.mark.parametrize(
    ("field", "identifier"),
    [
        ("function", "__function__"),
        ("a-b.c/d", "a__dash__b__dot__c__slash__d"),
        ("a__b", "a__underscores__b"),
    ],
)
def test_names_that_cel_reserves_are_escaped(field: str, identifier: str) -> None:
    assert escape(field) == identifier
