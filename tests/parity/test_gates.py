"""All programs that check manifests accept and refuse the same manifests, and name the refused field."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from rft_api import rules
from rft_api.base import Model
from rft_api.job import RFTJobSpec
from rft_api.validation import check
from tests.parity.cases import BROKEN, KEPT, Case, cases, kind_of
from tests.parity.gates import CLI, LOCAL, Gate, names, yaml_text


@pytest.mark.parametrize("gate", LOCAL, ids=lambda gate: gate.name)
def test_a_gate_agrees_with_the_models_on_all_it_can_check(gate: Gate, judged: Counter[str]) -> None:
    visible = [case for case in cases() if gate.can_judge(case)]
    judged[f"{gate.name}: cases of {len(cases())}"] += len(visible)
    disagreements = gate.disagreements(visible)
    assert disagreements == [], "\n".join(disagreements)


def test_the_gates_in_separate_programs_give_the_same_verdicts(tmp_path: Path) -> None:
    some = [case for case in cases() if CLI.can_judge(case)][:: len(cases()) // 6]
    for number, case in enumerate(some):
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml_text(case.manifest))
        command = [sys.executable, "-m", "rft_cli.main", "validate", str(path)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
        assert ran.returncode == (0 if case.refused_at is None else 1), (case.name, ran)
        assert case.refused_at is None or names(ran.stdout, case.refused_at), ran.stdout


def _environment() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(__file__).parents[2] / "operator"), "PATH": ""}


def test_every_rule_has_a_spec_that_breaks_it_and_one_just_within_its_limit() -> None:
    named = {rule.name for rule in rules.RULES}
    assert set(BROKEN) == named
    assert set(KEPT) == named


def test_a_case_that_breaks_a_rule_has_no_other_problem() -> None:
    for case in cases():
        if case.rule:
            problems = check(case.manifest).problems
            assert len(problems) == 1, (case.name, problems)
            assert names(problems[0].path, str(case.refused_at)), (case.name, problems)


def _fields(model: type[Model], path: str) -> list[str]:
    found = []
    for name, info in model.model_fields.items():
        field = f"{path}.{info.alias or name}"
        found.append(field)
        kind = kind_of(info).type
        item = kind.__args__[0] if getattr(kind, "__origin__", None) is list else None
        for inner, where in ((kind, field), (item, f"{field}[0]")):
            if isinstance(inner, type) and issubclass(inner, Model):
                found += _fields(inner, where)
    return found


def test_every_field_has_a_valid_and_an_invalid_case() -> None:
    by_field: dict[str, list[Case]] = {}
    for case in cases():
        by_field.setdefault(case.name.split(": ")[0], []).append(case)
    fields = _fields(RFTJobSpec, "spec")
    assert len(fields) > 100
    for field in fields:
        assert any(case.refused_at is None for case in by_field[field]), field
        assert any(case.refused_at is not None for case in by_field[field]), field


def test_a_path_is_recognized_in_every_servers_spelling_but_not_inside_other_paths() -> None:
    assert names("spec.graders[0].name: Required value", "spec.graders[0].name")
    assert names("spec.graders.0.name in body should match", "spec.graders[0].name")
    assert not names("spec.graders[0].nameless: is required", "spec.graders[0].name")
    assert not names("spec.graders[10].name: is required", "spec.graders[0].name")
