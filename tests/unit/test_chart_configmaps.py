"""An admission policy of the chart lets the operator write only ConfigMaps that an RFTJob controls."""

import subprocess

import pytest

from rft_api import GROUP, KIND
from tests.unit.chart_support import CHART, one, rendered, template

NAME = "sys-rft-rft-operator-configmaps"
POLICY, BINDING = "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"


def test_the_policy_is_about_all_writes_of_the_operators_account_and_of_nobody_else() -> None:
    documents = rendered("serviceAccount.name=own")
    policy = one(documents, POLICY, NAME)["spec"]
    (rule,) = policy["matchConstraints"]["resourceRules"]
    assert (rule["resources"], rule["operations"]) == (["configmaps"], ["CREATE", "UPDATE", "DELETE"])
    (condition,) = policy["matchConditions"]
    assert condition["expression"] == "request.userInfo.username == 'system:serviceaccount:sys:own'"
    assert policy["failurePolicy"] == "Fail"
    (validation,) = policy["validations"]
    assert f"'{GROUP}/'" in validation["expression"]
    assert f"'{KIND}'" in validation["expression"]
    binding = one(documents, BINDING, NAME)["spec"]
    assert binding == {"policyName": NAME, "validationActions": ["Deny"]}


@pytest.mark.parametrize("value", ["rbac.limitConfigMaps=false", "rbac.create=false"])
def test_the_policy_can_be_left_out(value: str) -> None:
    assert not [d for d in rendered(value) if d["kind"] in (POLICY, BINDING)]


def test_a_server_that_does_not_know_such_policies_gets_none() -> None:
    program = [*template().args[:2], "rft", str(CHART), "--namespace", "sys", "--kube-version"]
    kinds = {
        version: subprocess.run([*program, version], capture_output=True, text=True, check=True).stdout
        for version in ("1.29.4", "1.30.0")
    }
    assert [POLICY in text for text in kinds.values()] == [False, True]
