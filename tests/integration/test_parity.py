"""A real API server judges as the models do, whatever it can see."""

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rft_operator.cluster import ClusterError
from tests.integration.operator_support import RFTJOBS, Api, Object, Operator
from tests.parity.apiserver import stored
from tests.parity.cases import cases
from tests.parity.gates import SCHEMA, STORED_SCHEMA, Gate, Verdict, api_server
from tests.parity.random_specs import has_empty_text, manifests
from tests.waiting import wait_until

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


class Reconciler:
    """The operator without a webhook: it judges what the API server has let in, by ``Accepted``."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def judge(self, documents: Sequence[Object]) -> list[Verdict]:
        """Create each, wait for its condition, and delete it again."""
        named = [self._with_a_name(document, number) for number, document in enumerate(documents)]
        verdicts: dict[str, Verdict] = {}
        for document in named:
            try:
                self._api.create(RFTJOBS, document)
            except ClusterError as error:
                verdicts[document["metadata"]["name"]] = Verdict(False, str(error))

        def judged() -> bool:
            for job in self._api.call("GET", RFTJOBS)["items"]:
                for condition in job.get("status", {}).get("conditions", []):
                    if condition["type"] == "Accepted" and condition["status"] != "Unknown":
                        verdict = Verdict(condition["status"] == "True", condition["message"])
                        verdicts[job["metadata"]["name"]] = verdict
            return all(document["metadata"]["name"] in verdicts for document in named)

        try:
            wait_until("the operator has judged every job", judged, 120)
        finally:
            for document in named:
                if self._api.find(RFTJOBS, document["metadata"]["name"]) is not None:
                    self._api.delete(RFTJOBS, document["metadata"]["name"])
        return [verdicts[document["metadata"]["name"]] for document in named]

    def _with_a_name(self, document: Object, number: int) -> Object:
        """Name it for itself, and let its pod fit no node."""
        own = copy.deepcopy(document)
        own["metadata"]["name"] = f"judged-{number}"
        own["spec"].setdefault("resources", {}).setdefault("nodeSelector", {"rft.dev/none": "here"})
        return own


@pytest.mark.timeout(300)
def test_the_reconciler_agrees_with_the_models_on_every_rule_across_fields(
    api: Api, operator: Operator, judged: Counter[str]
) -> None:
    operator.check()
    gate = Gate("reconciler", Reconciler(api).judge)
    rules = [case for case in cases() if case.across_fields]
    judged[f"{gate.name}: cases across fields of {len(rules)}"] += len(rules)
    disagreements = gate.disagreements(rules)
    assert disagreements == [], "\n".join(disagreements)
