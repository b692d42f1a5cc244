"""Objects that the operator keeps up to date: certificates, ConfigMaps with the CA, and volume claims."""

from collections.abc import Callable, Iterator

import pytest

from tests.integration.operator_support import CONFIG_MAPS, Api, Operator, Run
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster
CLAIMS = "api/v1/namespaces/{}/persistentvolumeclaims"
SECRETS = "api/v1/namespaces/{}/secrets"
Submit = Callable[..., Run]


def test_a_claim_is_created_from_its_template(submit: Submit, api: Api) -> None:
    run = submit(storage={"claimTemplate": {"size": "1Gi"}})
    claim = wait_until("the claim", lambda: api.find(CLAIMS, run.child_name))
    assert claim["spec"]["resources"]["requests"] == {"storage": "1Gi"}


def test_a_changed_ca_configmap_is_corrected(submit: Submit, api: Api) -> None:
    run = submit()
    name = f"{run.child_name}-ca"
    before = wait_until("the CA", lambda: api.find(CONFIG_MAPS, name))["data"]
    api.patch(CONFIG_MAPS, name, {"data": {"ca.crt": "of yesterday"}})
    wait_until("the ConfigMap has the right CA again", lambda: api.get(CONFIG_MAPS, name)["data"] == before)


@pytest.fixture
def renamed(operator: Operator) -> Iterator[Operator]:
    """An operator that was restarted with one more DNS name in its certificate."""
    operator.stop()
    operator.environment["RFT_TLS_NAMES"] = "ingest.example"
    operator.start()
    yield operator
    operator.environment.clear()


def test_a_new_dns_name_gets_a_new_certificate_of_the_same_ca(
    submit: Submit, api: Api, request: pytest.FixtureRequest
) -> None:
    run = submit()
    trusted = wait_until("the CA", lambda: api.find(CONFIG_MAPS, f"{run.child_name}-ca"))["data"]
    before = api.get(SECRETS, "rft-operator-ingest-tls")["data"]
    operator: Operator = request.getfixturevalue("renamed")
    assert api.get(SECRETS, "rft-operator-ingest-tls")["data"] != before
    code = operator.push(trusted["ca.crt"], run.token(run.pod()), b"{}")
    assert code == 400, "the client trusts the new certificate; the operator refuses only the body"
