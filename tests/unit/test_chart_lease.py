"""The chart lets the operator read and update only the Lease with the operator's own name."""

from rft_operator.settings import MAX_LEASE_SECONDS, MIN_LEASE_SECONDS, from_env
from tests.unit.chart_support import one, rendered, template

NAME = "rft-rft-operator"


def test_the_operator_has_rights_for_its_own_lease_only() -> None:
    rules = one(rendered(), "Role", f"{NAME}-own")["rules"]
    leases = [(rule["verbs"], rule.get("resourceNames")) for rule in rules if rule["resources"] == ["leases"]]
    assert leases == [(["create"], None), (["get", "update"], [NAME])]


def test_the_operators_setting_names_the_lease_that_it_has_rights_for() -> None:
    (container,) = one(rendered("lease.seconds=30"), "Deployment", NAME)["spec"]["template"]["spec"][
        "containers"
    ]
    settings = from_env({e["name"]: e["value"] for e in container["env"] if "value" in e})
    assert (settings.lease, settings.lease_seconds) == (NAME, 30)


def test_the_chart_refuses_durations_that_the_operator_refuses() -> None:
    for seconds in (MIN_LEASE_SECONDS - 1, MAX_LEASE_SECONDS + 1):
        assert template(f"lease.seconds={seconds}").returncode != 0
