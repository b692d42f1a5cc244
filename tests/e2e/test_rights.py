"""The chart grants all rights that the operator needs: the API server refuses no request of the operator.

tests/integration/test_rights.py tests that the chart grants no other rights. This module runs after all other
e2e tests (tests/with_kueue.py). So the audit log has the operator's requests during these tests.
"""

import pytest

from tests.integration.account_support import Audit
from tests.kubectl import Kubectl

pytestmark = pytest.mark.e2e
OPERATOR = "system:serviceaccount:rft-system:rft-operator"


def test_no_request_of_the_operator_was_refused(kubectl: Kubectl) -> None:
    asked = Audit().requests(OPERATOR)
    assert asked, "the audit log must have at least the watch of RFTJobs"
    assert [one for one in asked if one.refused] == []
