"""The objects that the chart renders for the webhook.

The webhook is on by default. It has only the rights that it needs.
"""

import base64
from pathlib import Path

import pytest

from rft_operator.webhook.server import VALIDATE_PATH
from rft_operator.webhook.settings import from_env
from tests.unit.chart_support import NAME, Json, one, rendered, template

ON = "webhook.enabled=true"
SECRET = "webhook.tls.existingSecret=hook-tls"
MANAGED = "webhook.tls.certManager.enabled=true"


def of_webhook(documents: list[Json]) -> list[Json]:
    return [d for d in documents if "webhook" in d["metadata"]["name"]]


def test_the_webhook_is_on_by_default_and_can_be_turned_off() -> None:
    assert of_webhook(rendered()) == of_webhook(rendered(ON))
    assert of_webhook(rendered("webhook.enabled=false")) == []


def test_the_webhook_is_called_only_for_creations_and_updates_of_rftjobs() -> None:
    (webhook,) = one(rendered(ON), "ValidatingWebhookConfiguration", f"sys-{NAME}")["webhooks"]
    (rule,) = webhook["rules"]
    assert (rule["apiGroups"], rule["resources"]) == (["rft.dev"], ["rftjobs"])
    assert rule["operations"] == ["CREATE", "UPDATE"]
    assert (webhook["failurePolicy"], webhook["timeoutSeconds"]) == ("Ignore", 5)
    assert (webhook["sideEffects"], webhook["matchPolicy"]) == ("None", "Equivalent")
    assert webhook["namespaceSelector"] == {}
    assert webhook["clientConfig"]["service"]["path"] == VALIDATE_PATH
    assert "caBundle" not in webhook["clientConfig"], (
        "the chart must not set caBundle, because each upgrade would replace the webhook's own CA"
    )


def test_all_its_rights_are_limited_by_name_except_creating_its_secret() -> None:
    documents = of_webhook(rendered(ON))
    rules = [rule for d in documents if d["kind"] in ("Role", "ClusterRole") for rule in d["rules"]]
    assert [(r["resources"], r.get("resourceNames"), r["verbs"]) for r in rules] == [
        (["validatingwebhookconfigurations"], [f"sys-{NAME}"], ["get", "patch"]),
        (["secrets"], None, ["create"]),
        (["secrets"], [f"{NAME}-tls"], ["get", "patch"]),
    ]
    subjects = [s["name"] for d in documents if d["kind"].endswith("Binding") for s in d["subjects"]]
    assert subjects == [NAME, NAME]


def test_with_a_cert_manager_secret_it_has_no_rights_and_no_token() -> None:
    documents = of_webhook(rendered(ON, SECRET, "webhook.tls.injectCAFrom=sys/hook"))
    assert not [d for d in documents if "Role" in d["kind"]]
    pod = one(documents, "Deployment")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert {"name": "tls", "secret": {"secretName": "hook-tls"}} in pod["volumes"]
    configuration = one(documents, "ValidatingWebhookConfiguration", f"sys-{NAME}")
    assert configuration["metadata"]["annotations"] == {"cert-manager.io/inject-ca-from": "sys/hook"}


def test_cert_manager_makes_the_certificate_with_an_issuer_of_the_chart_or_a_given_one() -> None:
    documents = of_webhook(rendered(MANAGED))
    assert not [d for d in documents if "Role" in d["kind"]], (
        "with cert-manager the webhook writes no object, so it needs no rights"
    )
    certificate = one(documents, "Certificate")["spec"]
    assert certificate["dnsNames"] == [f"{NAME}.sys.svc"]
    assert certificate["issuerRef"] == {
        "name": one(documents, "Issuer")["metadata"]["name"],
        "kind": "Issuer",
    }
    pod = one(documents, "Deployment")["spec"]["template"]["spec"]
    assert {"name": "tls", "secret": {"secretName": certificate["secretName"]}} in pod["volumes"]
    configuration = one(documents, "ValidatingWebhookConfiguration", f"sys-{NAME}")
    assert configuration["metadata"]["annotations"] == {"cert-manager.io/inject-ca-from": f"sys/{NAME}"}

    issuer = (
        "webhook.tls.certManager.issuerRef.name=pki",
        "webhook.tls.certManager.issuerRef.kind=ClusterIssuer",
    )
    given = of_webhook(rendered(MANAGED, *issuer))
    assert not [d for d in given if d["kind"] == "Issuer"]
    assert one(given, "Certificate")["spec"]["issuerRef"] == {"name": "pki", "kind": "ClusterIssuer"}


def test_a_given_secret_and_cert_manager_exclude_each_other() -> None:
    assert "exclude each other" in template(MANAGED, SECRET).stderr


def test_the_ca_bundle_can_be_set_for_a_given_secret() -> None:
    documents = rendered(ON, SECRET, "webhook.tls.caBundle=pem")
    (webhook,) = one(documents, "ValidatingWebhookConfiguration", f"sys-{NAME}")["webhooks"]
    assert base64.b64decode(webhook["clientConfig"]["caBundle"]) == b"pem"


def test_a_ca_injector_without_a_secret_is_refused() -> None:
    done = template(ON, "webhook.tls.injectCAFrom=sys/hook")
    assert done.returncode != 0
    assert "webhook.tls.existingSecret" in done.stderr


@pytest.mark.parametrize("values", [(ON,), (ON, SECRET)], ids=["own certificates", "a mounted Secret"])
def test_the_pod_is_restricted_and_its_settings_can_be_parsed(values: tuple[str, ...]) -> None:
    documents = rendered(*values, "webhook.clusterIP=10.96.0.201")
    spec = one(documents, "Deployment")["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["replicas"] == 2
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    settings = from_env({e["name"]: e["value"] for e in container["env"] if "value" in e})
    assert settings.port == container["ports"][0]["containerPort"]
    assert settings.health_port == container["ports"][1]["containerPort"]
    if SECRET in values:
        assert settings.tls_folder == Path(container["volumeMounts"][1]["mountPath"])
    else:
        assert (settings.tls_secret, settings.configuration) == (f"{NAME}-tls", f"sys-{NAME}")
        assert {f"{NAME}.sys.svc", "10.96.0.201"} <= set(settings.tls_names)
    assert one(documents, "Service")["spec"]["clusterIP"] == "10.96.0.201"


def test_the_operator_and_its_ingest_do_not_select_the_webhooks_pods() -> None:
    documents = rendered(ON)
    labels = one(documents, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    others = [one(documents, "Deployment", "rft-rft-operator")["spec"]["selector"]["matchLabels"]]
    others.append(one(documents, "Service", "rft-rft-operator-ingest")["spec"]["selector"])
    assert not any(other.items() <= labels for other in others)
    assert one(documents, "Service")["spec"]["selector"].items() <= labels


def test_a_disruption_budget_is_rendered_on_request() -> None:
    assert not [d for d in of_webhook(rendered(ON)) if d["kind"] == "PodDisruptionBudget"]
    documents = rendered(ON, "webhook.podDisruptionBudget.enabled=true")
    assert one(documents, "PodDisruptionBudget")["spec"]["minAvailable"] == 1
