"""kubectl against a current API server."""

import os
import shutil
from pathlib import Path

import httpx
import pytest

from tests.cluster.layout import default_layout
from tests.kubectl import Kubectl
from tests.kubectl_checks import KubectlChecks
from tests.modern.server import Server

pytestmark = [pytest.mark.modern, pytest.mark.timeout(300, func_only=True)]


@pytest.fixture(scope="module")
def kubectl(server: Server, installed: httpx.Response) -> Kubectl:
    """kubectl as an administrator of the server."""
    found = shutil.which("kubectl", path=f"{default_layout().tools}:{os.environ['PATH']}")
    if found is None:
        pytest.skip("there is no kubectl; `make cluster-up` fetches one")
    return Kubectl(Path(found), server.kubeconfig, "default")


class TestKubectl(KubectlChecks):
    """All of the checks."""
