"""No request of the installed operator is refused: the rights of its chart are enough.

That none of the rights is superfluous is tested elsewhere, without pods. By its name this file comes late, so
that the audit log has the operator's requests during the tests before it.
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
