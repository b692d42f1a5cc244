"""What the chart renders for clusters that assign user IDs to pods, such as OpenShift."""

from typing import Any

import pytest

from rft_operator.settings import from_env
from tests.unit.chart_support import one, rendered

NAME = "rft-rft-operator"
WEBHOOK = "rft-rft-operator-webhook"


def pods(*values: str) -> list[dict[str, Any]]:
    documents = rendered("webhook.enabled=true", *values)
    return [one(documents, "Deployment", name)["spec"]["template"]["spec"] for name in (NAME, WEBHOOK)]


@pytest.mark.parametrize(("value", "fixed"), [("auto", True), ("false", True), ("true", False)])
def test_operator_and_webhook_name_users_only_where_the_cluster_takes_them(value: str, fixed: bool) -> None:
    for pod in pods(f"assignsUsers={value}"):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert [name in security for name in ("runAsUser", "runAsGroup", "fsGroup")] == [fixed] * 3


def test_the_operator_is_told_what_the_chart_was_told() -> None:
    operator, _webhook = pods("assignsUsers=true")
    (container,) = operator["containers"]
    settings = from_env({e["name"]: e["value"] for e in container["env"] if "value" in e})
    assert settings.assigns_users == "true"
