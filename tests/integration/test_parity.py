"""A real API server accepts and refuses the same manifests as the pydantic models of ``rft_api``.

Checks that a CRD's schema cannot express are left out.
"""

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rft_api.forms import FORMS
from rft_operator.cluster import ClusterError
from tests.integration.operator_support import RFTJOBS, Api, Object, Operator, has_cel
from tests.parity.apiserver import stored
from tests.parity.cases import Sight, cases
from tests.parity.gates import ALL_RULES, MODEL, OLD_SCHEMA, STORED_SCHEMA, Gate, Verdict, api_server
from tests.parity.random_specs import has_empty_text, has_whole_float, manifests
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def gate(api: Api) -> Gate:
    if not has_cel(api):
        return api_server(api)
    return api_server(api, evaluates=ALL_RULES, by_cel=True, strict=True, tells_empty_from_null=True)


@pytest.mark.timeout(600)
def test_the_api_server_agrees_with_the_models_on_all_it_can_check(gate: Gate, judged: Counter[str]) -> None:
    visible = [case for case in cases() if gate.can_judge(case)]
    judged[f"{gate.name}: cases of {len(cases())}"] += len(visible)
    disagreements = gate.disagreements(visible)
    assert disagreements == [], "\n".join(disagreements)


def test_the_api_server_says_in_words_which_form_a_text_must_have(api: Api, gate: Gate) -> None:
    if not has_cel(api):
        pytest.skip("an API server without CEL does not check the forms of texts")
    broken = [case for case in cases() if Sight.FIELD_RULE in case.takes and gate.can_judge(case)]
    assert len(broken) > 50
    texts = [verdict.text for verdict in gate.judge([case.manifest for case in broken])]
    for text in texts:
        assert not any(pattern in text for pattern in FORMS), text
    assert all(any(form.words in text for text in texts) for form in FORMS.values())


@pytest.mark.timeout(600)
@settings(
    max_examples=42,  # each is a batch of 50 specs
    phases=(Phase.explicit, Phase.generate),  # shrinking a failing batch would take minutes
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(batch=st.lists(manifests(), min_size=50, max_size=50))
def test_the_api_server_agrees_with_the_crds_schema_on_random_specs(
    api: Api, judged: Counter[str], batch: list[dict[str, Any]]
) -> None:
    """Without CEL the API server checks only the schema. With CEL it also checks the rules across fields."""
    cel = has_cel(api)
    kept = [(each, stored(each, STORED_SCHEMA)) for each in batch]
    hidden = [has_whole_float(whole, STORED_SCHEMA) if cel else has_empty_text(whole) for _, whole in kept]
    visible = [pair for pair, hides in zip(kept, hidden, strict=True) if not hides]
    judged[f"API server, {'with' if cel else 'without'} rules across fields: random specs"] += len(visible)
    theirs = api_server(api).judge([sent for sent, _ in visible])
    ours = (
        MODEL.judge([whole for _, whole in visible])
        if cel
        else OLD_SCHEMA.judge([sent for sent, _ in visible])
    )
    differ = [
        (sent["spec"], our, their)
        for (sent, _), our, their in zip(visible, ours, theirs, strict=True)
        if our.accepted != their.accepted
    ]
    assert differ == []


class Reconciler:
    """The operator without a webhook. It accepts a manifest if the condition ``Accepted`` is "True"."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def judge(self, documents: Sequence[Object]) -> list[Verdict]:
        """Create each manifest, wait for its condition, and delete it again."""
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
            wait_until("every job has the condition Accepted", judged, 120)
        finally:
            for document in named:
                if self._api.find(RFTJOBS, document["metadata"]["name"]) is not None:
                    self._api.delete(RFTJOBS, document["metadata"]["name"])
        return [verdicts[document["metadata"]["name"]] for document in named]

    def _with_a_name(self, document: Object, number: int) -> Object:
        """Return the manifest with a unique name, and with a node selector that matches no node."""
        own = copy.deepcopy(document)
        own["metadata"]["name"] = f"judged-{number}"
        own["spec"].setdefault("resources", {}).setdefault("nodeSelector", {"rft.dev/none": "here"})
        return own


def test_the_reconciler_agrees_with_the_models_on_every_rule_across_fields(
    api: Api, operator: Operator, judged: Counter[str]
) -> None:
    operator.check()
    gate = Gate("reconciler", Reconciler(api).judge)
    rules = [case for case in cases() if case.across_fields]
    judged[f"{gate.name}: cases of rules across fields, of {len(rules)}"] += len(rules)
    disagreements = gate.disagreements(rules)
    assert disagreements == [], "\n".join(disagreements)
