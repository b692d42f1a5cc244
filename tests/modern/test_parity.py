"""A current API server, with CEL and strict validation, accepts the same objects as the pydantic models."""

from collections import Counter

import httpx
import pytest

from rft_operator.cluster import ClusterError
from tests.modern.server import Server
from tests.modern.support import Object
from tests.parity.cases import cases
from tests.parity.gates import ALL_RULES, Gate, api_server

pytestmark = [pytest.mark.modern, pytest.mark.timeout(300, func_only=True)]


class DefaultNamespace:
    """Implements the ``RestApi`` of the parity tests, for the namespace ``default`` of the API server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def call(self, method: str, path: str, body: Object | None = None) -> Object:
        """Send one request. ``default`` replaces ``{}`` in the path. A refusal raises ClusterError."""
        answer = self._server.call(method, f"/{path.format('default')}", body)
        if answer.is_error:
            raise ClusterError(answer.status_code, str(answer.json().get("message")))
        return dict(answer.json())


@pytest.fixture(scope="module")
def gate(server: Server, installed: httpx.Response) -> Gate:
    return api_server(
        DefaultNamespace(server),
        name="API server with CEL",
        evaluates=ALL_RULES,
        by_cel=True,
        strict=True,
        tells_empty_from_null=True,
    )


def test_the_server_agrees_with_the_models_on_all_it_can_check(gate: Gate, judged: "Counter[str]") -> None:
    visible = [case for case in cases() if gate.can_judge(case)]
    judged[f"{gate.name}: cases of {len(cases())}"] += len(visible)
    disagreements = gate.disagreements(visible)
    assert disagreements == [], "\n".join(disagreements)
