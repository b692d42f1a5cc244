"""The chart starts two operators, spread over nodes. The ingest's Service selects only the leader."""

import pytest

from rft_operator.health import READY_PATH
from rft_operator.leadership import LEADER_LABEL
from tests.unit.chart_support import Json, one, rendered

OPERATOR = "rft-rft-operator"
WEBHOOK = f"{OPERATOR}-webhook"


def pod(*values: str, name: str = OPERATOR) -> Json:
    found: Json = one(rendered(*values), "Deployment", name)["spec"]["template"]
    return found


def test_two_operators_run_and_an_update_starts_the_new_one_first() -> None:
    spec = one(rendered(), "Deployment", OPERATOR)["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert one(rendered("replicas=1"), "Deployment", OPERATOR)["spec"]["replicas"] == 1


def test_the_ingests_service_selects_only_the_pod_that_has_the_leaders_label() -> None:
    selector = one(rendered(), "Service", f"{OPERATOR}-ingest")["spec"]["selector"]
    assert selector.pop(LEADER_LABEL) == "true"
    labels = pod()["metadata"]["labels"]
    assert selector.items() <= labels.items()
    assert LEADER_LABEL not in labels, "the leader itself adds this label to its pod"


def test_the_operator_knows_its_pod_and_may_label_it() -> None:
    (container,) = pod()["spec"]["containers"]
    assert {"name": "RFT_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}} in container[
        "env"
    ]
    rules = one(rendered(), "Role", f"{OPERATOR}-own")["rules"]
    assert [rule["verbs"] for rule in rules if rule["resources"] == ["pods"]] == [["patch"]]


def test_readiness_is_asked_at_the_port_and_path_where_the_operator_answers() -> None:
    (container,) = pod()["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": READY_PATH, "port": "health"}


def test_a_drain_takes_one_operator_at_a_time() -> None:
    budget = one(rendered(), "PodDisruptionBudget", OPERATOR)["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"]["matchLabels"].items() <= pod()["metadata"]["labels"].items()
    without = rendered("podDisruptionBudget.enabled=false")
    assert not [d for d in without if d["kind"] == "PodDisruptionBudget"]


@pytest.mark.parametrize("name", [OPERATOR, WEBHOOK])
def test_pods_leave_a_lost_node_soon_and_keep_the_given_tolerations(name: str) -> None:
    values = ("webhook.enabled=true", "tolerations[0].key=infra", "lostNodeSeconds=20")
    made = pod(*values, name=name)
    spec = made["spec"]
    lost = [t for t in spec["tolerations"] if t.get("tolerationSeconds") == 20]
    assert [t["key"] for t in lost] == ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
    assert spec["tolerations"][2:] == [{"key": "infra"}]
    (spread,) = spec["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"].items() <= made["metadata"]["labels"].items()
