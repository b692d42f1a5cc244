"""kubectl against the test cluster, while the operator writes the status."""

import os
import shutil
from pathlib import Path

import pytest

from tests.cluster.layout import default_layout
from tests.integration.operator_support import Api, Operator
from tests.kubectl import Kubectl
from tests.kubectl_checks import KubectlChecks

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def kubectl(api: Api, operator: Operator, kubeconfig: Path) -> Kubectl:
    """kubectl in the namespace that the operator under test serves."""
    operator.check()
    found = shutil.which("kubectl", path=f"{default_layout().tools}:{os.environ['PATH']}")
    assert found is not None, "there is a cluster but no kubectl"
    return Kubectl(Path(found), kubeconfig, api.namespace)


class TestKubectl(KubectlChecks):
    """All of the checks."""
