"""The chart's NetworkPolicies are off by default. If they are on, they allow only traffic that pods need."""

from pathlib import Path

import pytest
import yaml

from rft_operator.objects.names import LABEL_JOB_UID
from rft_operator.settings import Settings
from tests.unit.chart_support import NAME as WEBHOOK
from tests.unit.chart_support import Json, one, rendered, template

OPERATOR = "rft-rft-operator"
ON, HOOK = "networkPolicy.enabled=true", "webhook.enabled=true"
RUNS = ("networkPolicy.runs.enabled=true", "watch.namespaces={a,b}")


def policies(*values: str) -> list[Json]:
    return [document for document in rendered(*values) if document["kind"] == "NetworkPolicy"]


def policy(name: str, *values: str) -> Json:
    spec: Json = one(rendered(*values), "NetworkPolicy", name)["spec"]
    return spec


def ports(rules: list[Json]) -> list[list[int]]:
    return [[port["port"] for port in rule["ports"]] for rule in rules]


def labels_of(deployment: str, *values: str) -> Json:
    found: Json = one(rendered(*values), "Deployment", deployment)["spec"]["template"]["metadata"]["labels"]
    return found


def test_no_policy_is_rendered_by_default() -> None:
    assert policies(HOOK) == []


@pytest.mark.parametrize("name", [OPERATOR, WEBHOOK])
def test_a_policy_selects_the_pods_of_its_own_deployment_only(name: str) -> None:
    selected = policy(name, ON, HOOK)["podSelector"]["matchLabels"]
    other = WEBHOOK if name == OPERATOR else OPERATOR
    assert selected.items() <= labels_of(name, ON, HOOK).items()
    assert not selected.items() <= labels_of(other, ON, HOOK).items()


def test_every_port_of_the_operators_pod_is_reachable_and_the_ingest_only_for_pods_of_runs() -> None:
    given = policy(OPERATOR, ON, "ingest.port=9443", "metrics.port=9191")
    (container,) = one(rendered(ON, "ingest.port=9443", "metrics.port=9191"), "Deployment", OPERATOR)["spec"][
        "template"
    ]["spec"]["containers"]
    assert ports(given["ingress"]) == [[9443], [9191], [Settings.health_port]]
    assert {port for (port,) in ports(given["ingress"])} == {p["containerPort"] for p in container["ports"]}
    (reports,) = given["ingress"][0]["from"]
    assert reports["namespaceSelector"] == {}
    assert reports["podSelector"] == {"matchExpressions": [{"key": LABEL_JOB_UID, "operator": "Exists"}]}
    assert all("from" not in rule for rule in given["ingress"][1:])


def test_operator_and_webhook_reach_only_the_api_server_and_dns() -> None:
    for name in (OPERATOR, WEBHOOK):
        given = policy(name, ON, HOOK)
        assert set(given["policyTypes"]) == {"Ingress", "Egress"}
        assert ports(given["egress"]) == [[443, 6443], [53, 53]]
        assert all("to" not in rule for rule in given["egress"])


def test_the_addresses_of_the_api_server_can_be_named() -> None:
    api, _dns = policy(
        OPERATOR, ON, "networkPolicy.apiServer.cidrs={10.0.0.1/32}", "networkPolicy.apiServer.ports={16443}"
    )["egress"]
    assert api == {
        "ports": [{"port": 16443, "protocol": "TCP"}],
        "to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}],
    }


def test_a_webhook_with_a_mounted_secret_reaches_nobody() -> None:
    assert policy(WEBHOOK, ON, HOOK, "webhook.tls.existingSecret=tls")["egress"] == []


def test_the_senders_can_be_named() -> None:
    def peer(place: str) -> str:
        return f"networkPolicy.{place}[0].namespaceSelector.matchLabels.name=monitoring"

    named = {"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}
    given = policy(OPERATOR, ON, peer("metricsFrom"), peer("ingestFrom"))["ingress"]
    assert given[1]["from"] == [named]
    assert given[0]["from"][1] == named
    assert policy(WEBHOOK, ON, HOOK, peer("webhookFrom"))["ingress"][0]["from"] == [named]


def test_the_webhooks_pod_is_reachable_at_its_ports() -> None:
    assert ports(policy(WEBHOOK, ON, HOOK, "webhook.port=9444")["ingress"]) == [[9444], [8080]]


def test_the_pods_of_runs_get_the_documented_policy_in_each_served_namespace() -> None:
    found = policies(*RUNS)
    assert [made["metadata"]["namespace"] for made in found] == ["a", "b"]
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in text.split("```yaml\n")[1:]]
    (documented,) = (yaml.safe_load(block) for block in blocks if "kind: NetworkPolicy" in block)
    assert all(made["spec"] == documented["spec"] for made in found)


def test_policies_for_runs_in_all_namespaces_are_refused_and_the_message_says_what_to_do() -> None:
    done = template("networkPolicy.runs.enabled=true")
    assert done.returncode != 0
    assert "needs watch.namespaces" in done.stderr


@pytest.mark.parametrize(
    "wrong",
    ["networkPolicy.enabled=yes", "networkPolicy.apiServer.cidrs={10.0.0.1}", "networkPolicy.other=1"],
)
def test_values_that_cannot_be_are_refused(wrong: str) -> None:
    assert template(wrong).returncode != 0
