"""A real API server judges as the models do, whatever it can see."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.operator_support import Api
from tests.parity.apiserver import stored
from tests.parity.cases import cases
from tests.parity.gates import SCHEMA, STORED_SCHEMA, Gate, api_server
from tests.parity.random_specs import has_empty_text, manifests

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def gate(api: Api) -> Gate:
    return api_server(api)


@pytest.mark.timeout(600)
def test_the_api_server_agrees_with_the_models_on_all_it_can_see(gate: Gate, judged: Counter[str]) -> None:
    visible = [case for case in cases() if gate.can_judge(case)]
    judged[f"{gate.name}: cases of {len(cases())}"] += len(visible)
    disagreements = gate.disagreements(visible)
    assert disagreements == [], "\n".join(disagreements)


@pytest.mark.timeout(600)
@settings(
    max_examples=42,  # of 50 specs; a few hold empty texts, which 1.20 takes for null
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(batch=st.lists(manifests(), min_size=50, max_size=50))
def test_the_api_server_agrees_with_the_crds_schema_on_random_specs(
    gate: Gate, judged: Counter[str], batch: list[dict[str, Any]]
) -> None:
    visible = [each for each in batch if not has_empty_text(stored(each, STORED_SCHEMA))]
    judged[f"{gate.name}: random specs"] += len(visible)
    ours, theirs = SCHEMA.judge(visible), gate.judge(visible)
    differ = [
        (document["spec"], our, their)
        for document, our, their in zip(visible, ours, theirs, strict=True)
        if our.accepted != their.accepted
    ]
    assert differ == []
