"""The chart grants all rights that the operator needs: the API server refuses no request of the operator.

tests/integration/test_rights.py tests that the chart grants no other rights. pytest runs the modules in
alphabetical order. So the audit log has the operator's requests from all earlier modules.
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
