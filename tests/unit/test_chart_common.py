"""Chart values that apply to every object or pod: labels, registry, digests, environment, users, network."""

import pytest

from rft_operator.webhook.settings import from_env
from tests.unit.chart_support import Json, one, rendered, template

OPERATOR = "rft-rft-operator"
WEBHOOK = f"{OPERATOR}-webhook"
ON = "webhook.enabled=true"
DIGEST = "sha256:" + "0a" * 32


def pod(name: str, *values: str) -> Json:
    found: Json = one(rendered(ON, *values), "Deployment", name)["spec"]["template"]["spec"]
    return found


def test_common_labels_are_on_every_object_and_in_no_selector() -> None:
    documents = rendered(ON, "commonLabels.team=ml")
    without = [
        d["metadata"]["name"] for d in documents if d["metadata"].get("labels", {}).get("team") != "ml"
    ]
    assert without == ["rftjobs.rft.dev"], "all objects but the CRD have the label"
    for deployment in (d for d in documents if d["kind"] == "Deployment"):
        assert "team" not in deployment["spec"]["selector"]["matchLabels"]


def test_the_registry_and_the_digests_are_in_the_names_of_the_images() -> None:
    values = (
        "imageRegistry=mirror:5000/x/",
        f"image.digest={DIGEST}",
        "image.tag=v2",
        "trainer.image.tag=v3",
    )
    (container,) = pod(OPERATOR, *values)["containers"]
    assert container["image"] == f"mirror:5000/x/rft-operator:v2@{DIGEST}"
    trainer = {"name": "RFT_TRAINER_IMAGE", "value": "mirror:5000/x/rft-trainer:v3"}
    assert trainer in container["env"]
    assert pod(WEBHOOK, *values)["containers"][0]["image"] == container["image"]


def test_a_digest_of_another_form_is_refused() -> None:
    assert "image/digest" in template("image.digest=sha256:12").stderr


def test_environment_variables_are_added() -> None:
    values = ("extraEnv[0].name=A", "extraEnv[0].value=x", "webhook.extraEnv[0].name=B")
    assert pod(OPERATOR, *values)["containers"][0]["env"][-1] == {"name": "A", "value": "x"}
    assert pod(WEBHOOK, *values)["containers"][0]["env"][-1] == {"name": "B"}


@pytest.mark.parametrize("name", [OPERATOR, WEBHOOK])
def test_users_can_be_left_to_the_cluster(name: str) -> None:
    numbers = [f"podSecurityContext.{each}=null" for each in ("runAsUser", "runAsGroup", "fsGroup")]
    found = pod(name, *numbers)["securityContext"]
    assert found == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_services_get_the_given_address_families() -> None:
    values = (ON, "ipFamilyPolicy=PreferDualStack", "ipFamilies={IPv6,IPv4}")
    for service in (d["spec"] for d in rendered(*values) if d["kind"] == "Service"):
        assert (service["ipFamilyPolicy"], service["ipFamilies"]) == ("PreferDualStack", ["IPv6", "IPv4"])
    assert all("ipFamilyPolicy" not in d["spec"] for d in rendered(ON) if d["kind"] == "Service")


def test_the_webhook_can_listen_on_the_nodes_network_at_free_ports() -> None:
    values = ("webhook.hostNetwork=true", "webhook.port=9443", "webhook.healthPort=9081")
    found = pod(WEBHOOK, *values)
    assert (found["hostNetwork"], found["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
    (container,) = found["containers"]
    settings = from_env({e["name"]: e["value"] for e in container["env"] if "value" in e})
    ports = [port["containerPort"] for port in container["ports"]]
    assert ports == [settings.port, settings.health_port] == [9443, 9081]
    update = one(rendered(ON, *values), "Deployment", WEBHOOK)["spec"]["strategy"]["rollingUpdate"]
    assert update == {"maxSurge": 0, "maxUnavailable": 1}, (
        "two pods on the network of one node cannot listen on the same port"
    )
