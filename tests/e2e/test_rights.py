"""The installed operator gets by with the rights of its chart; that none is too many is tested without pods.

Last by its name: the audit log then holds what the operator did for all the others.
"""

import pytest

from tests.integration.account_support import Audit
from tests.kubectl import Kubectl

pytestmark = pytest.mark.e2e
OPERATOR = "system:serviceaccount:rft-system:rft-operator"


def test_no_request_of_the_operator_was_refused(kubectl: Kubectl) -> None:
    asked = Audit().requests(OPERATOR)
    assert asked, "it watches RFTJobs at least"
    assert [one for one in asked if one.refused] == []
