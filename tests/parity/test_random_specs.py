"""Random specs: all programs that check them agree. A valid spec is unchanged after writing and reading."""

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from pydantic import ValidationError

from rft_api.job import RFTJob
from rft_api.loader import load_documents
from rft_api.rules import RULES
from rft_api.validation import check
from tests.parity.apiserver import stored
from tests.parity.gates import LIST_MAP_RULES, SCHEMA, STORED_SCHEMA, TRAINER, yaml_text
from tests.parity.random_specs import manifests


@pytest.mark.timeout(600)
@settings(
    max_examples=2000,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(document=manifests())
def test_all_gates_agree_about_random_specs(document: dict[str, Any], judged: Counter[str]) -> None:
    job, problems = check(document)
    accepted = "accepted" if job is not None else "refused"
    judged[f"model, loader, trainer and schema: random specs, {accepted}"] += 1

    # The loader reads back what was written, so all commands give the same verdict.
    (read,) = load_documents(yaml_text(document))
    assert [problem.path for problem in check(read.body).problems] == [problem.path for problem in problems]
    if not any("no such field" in str(problem) for problem in problems):  # a trainer ignores unknown fields
        assert TRAINER.accepts(document).accepted == (job is not None)

    # Apart from rules across fields, the schema accepts an object exactly if the pydantic models accept the
    # object that an API server would store.
    kept = stored(document, STORED_SCHEMA)
    verdict = SCHEMA.accepts(document)
    assert verdict.accepted == _every_field_is_valid(kept), (verdict.text, check(kept).problems)

    # A valid spec is unchanged after writing it as JSON and reading it again.
    if job is not None:
        written = json.loads(json.dumps({**document, "spec": job.spec.dump()}))
        again, _ = check(written)
        assert again is not None
        assert again.spec == job.spec


def _every_field_is_valid(document: dict[str, Any]) -> bool:
    """Return whether the pydantic models accept the document.

    Of the rules across fields, only those are checked that the schema checks too.
    """
    try:
        job = RFTJob.model_validate(document, by_alias=True, by_name=False)
    except ValidationError:
        return False
    return not any(list(rule(job.spec)) for rule in RULES if rule.name in LIST_MAP_RULES)
