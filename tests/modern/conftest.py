"""Fixtures: a current API server, and the same server with the CRD."""

from collections.abc import Iterator

import httpx
import pytest

from rft_api import GROUP, PLURAL
from rft_codegen.crd import crd
from tests.cluster.layout import default_layout
from tests.cluster.shell import ClusterError, wait_until
from tests.modern.build import modern_server
from tests.modern.server import Server, running
from tests.modern.support import CRDS, RFTJOBS


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running API server without any CRD. If it must be built, this takes minutes."""
    try:
        binaries = modern_server(default_layout().cache)
    except ClusterError as error:
        pytest.skip(f"no modern API server: {error}")
    with running(binaries, tmp_path_factory.mktemp("modern")) as server:
        yield server


@pytest.fixture(scope="session")
def installed(server: Server) -> httpx.Response:
    """Install the CRD and wait until RFTJobs are served. Return the response to the CRD's creation."""
    answer = server.call("POST", CRDS, crd())
    assert answer.status_code == 201, answer.text
    name = f"{PLURAL}.{GROUP}"

    def established() -> bool:
        status = server.call("GET", f"{CRDS}/{name}").json()["status"]
        conditions = status.get("conditions") or []
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

    wait_until("establishment of the CRD", 30, established)
    wait_until("answer for RFTJobs", 30, lambda: server.call("GET", RFTJOBS).status_code == 200)
    return answer
