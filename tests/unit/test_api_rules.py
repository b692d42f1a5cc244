"""Each rule of ``rft_api.rules`` accepts valid specs, refuses a spec that breaks it, and names the field."""

import pytest

from rft_api import rules
from rft_api.validation import check, parse
from tests.manifests import manifest
from tests.violations import VIOLATIONS, Violation

BROKEN = [
    pytest.param(rule, broken, id=f"{rule.name}-{broken.path}")
    for rule in rules.RULES
    for broken in VIOLATIONS[rule.name]
]


@pytest.mark.parametrize(("rule", "broken"), BROKEN)
def test_each_rule_names_the_refused_field(rule: rules.Rule, broken: Violation) -> None:
    assert [p.path for p in check(manifest(**broken.spec)).problems] == [broken.path]
    assert list(rule(parse(manifest()).spec)) == []


def test_all_violations_are_reported_at_once() -> None:
    problems = check(manifest(storage={}, graders=[{"name": "right"}], suspend=True)).problems
    assert {p.path for p in problems} == {"spec.storage", "spec.graders[0]"}


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.name)
def test_each_rule_has_cel_or_a_reason_why_it_has_none(rule: rules.Rule) -> None:
    assert bool(rule.cel) != bool(rule.no_cel)
