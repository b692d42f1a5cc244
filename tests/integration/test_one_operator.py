"""Tests with two operators: only the first reconciles, and the second takes over when the first stops."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.integration.account_support import Account, Audit, account
from tests.integration.operator_support import JOBS, RFTJOBS, Api, Object, Operator
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster
LEASES = "apis/coordination.k8s.io/v1/namespaces/{}/leases"
WRITES = ("create", "update", "patch", "delete")
Start = Callable[..., Operator]


@pytest.fixture
def place(api: Api) -> Iterator[Api]:
    """A namespace that no other operator serves."""
    place = Api(api._cluster, f"rft-one-{uuid4().hex[:8]}")
    place.call(
        "POST",
        "api/v1/namespaces",
        {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": place.namespace}},
    )
    yield place
    place.call("DELETE", f"api/v1/namespaces/{place.namespace}")


@pytest.fixture
def accounts(place: Api) -> Iterator[list[Account]]:
    """A service account for each of the two operators, so the audit log shows the sender of each request."""
    scope = f"watch.namespaces={{{place.namespace}}}"
    # The chart lets each operator use only its own Lease. These two use the same Lease, so a further role
    # lets both use all Leases of the namespace.
    made = [account(place, name, scope) for name in ("rft-operator-a", "rft-operator-b")]
    place.create(*_shared_lease(place))
    place.create(*_shared_binding(place, made))
    yield made
    for one in made:
        one.remove()


def _shared_lease(place: Api) -> tuple[str, Object]:
    rules = [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "get", "update"]}
    ]
    return "apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles", {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "shared-lease", "namespace": place.namespace},
        "rules": rules,
    }


def _shared_binding(place: Api, accounts: list[Account]) -> tuple[str, Object]:
    return "apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings", {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "shared-lease", "namespace": place.namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "shared-lease"},
        "subjects": [
            {"kind": "ServiceAccount", "name": a.name, "namespace": place.namespace} for a in accounts
        ],
    }


@pytest.fixture
def pair(
    place: Api, accounts: list[Account], kubeconfig: Path, tmp_path: Path
) -> Iterator[Callable[[int], tuple[Operator, Operator]]]:
    """Return a function that starts two operators with the same Lease.

    The function gets the duration of the Lease in seconds. It starts the second operator when the first holds
    the Lease. Both operators are killed after the test.
    """
    started: list[Operator] = []

    def start(seconds: int) -> tuple[Operator, Operator]:
        for one in accounts:
            credentials = one.kubeconfig(kubeconfig, tmp_path / f"{one.name}.kubeconfig")
            operator = Operator(
                credentials,
                place.namespace,
                tmp_path / f"{one.name}.log",
                RFT_LEASE="the-lease",
                RFT_LEASE_SECONDS=str(seconds),
                RFT_TLS_SECRET=f"{one.name}-ingest-tls",
            )
            started.append(operator)
        first, second = started
        first.start()
        second.launch()
        wait_until(
            "the second operator waits for the Lease", lambda: "this process waits:" in second.log.read_text()
        )
        return first, second

    yield start
    for operator in started:
        operator.kill()


def holder(place: Api) -> str:
    """Return the identity of the operator that holds the Lease."""
    return str(place.get(LEASES, "the-lease")["spec"]["holderIdentity"])


def submit(place: Api, manifest: Callable[..., Object], count: int = 1) -> None:
    """Create RFTJobs."""
    for number in range(count):
        job = manifest()
        job["metadata"]["name"] = f"one-{uuid4().hex[:6]}-{number}"
        place.create(RFTJOBS, job)


def children(place: Api) -> int:
    """Return the number of child Jobs."""
    return len(place.call("GET", JOBS).get("items") or [])


def test_the_second_operator_takes_over_after_the_first_was_killed(
    pair: Callable[[int], tuple[Operator, Operator]],
    place: Api,
    accounts: list[Account],
    manifest: Callable[..., Object],
) -> None:
    audit = Audit()
    first, second = pair(9)
    submit(place, manifest)
    wait_until("the first operator creates children", lambda: children(place) == 1)
    assert not second.listens(), "only the operator that holds the Lease may be ready"
    assert second.health() == (200, "ok"), "the operator that waits for the Lease is live too"
    asked = {request.right for request in audit.requests(accounts[1].user)}
    assert {(right.resource, right.verb) for right in asked} == {("leases", "get")}
    first.send(signal.SIGKILL)
    assert first.wait(10) == -signal.SIGKILL
    submit(place, manifest)
    wait_until("the second operator creates children", lambda: children(place) == 2, 9 + 10)
    assert second.listens()


def test_the_second_operator_takes_over_at_once_after_a_clean_stop(
    pair: Callable[[int], tuple[Operator, Operator]], place: Api
) -> None:
    first, second = pair(90)
    before = holder(place)
    first.send(signal.SIGTERM)
    assert first.wait(30) == 0
    # Far less than the Lease duration of ninety seconds.
    wait_until("the second operator's ingest answers", second.listens, 40)
    assert holder(place) not in ("", before)


def test_an_operator_that_was_paused_beyond_its_lease_writes_nothing_and_exits(
    pair: Callable[[int], tuple[Operator, Operator]],
    place: Api,
    accounts: list[Account],
    manifest: Callable[..., Object],
) -> None:
    audit = Audit()
    first, second = pair(9)
    before = holder(place)
    submit(place, manifest, 30)
    wait_until("the first operator has created some children", lambda: children(place) > 0, poll=0.01)
    first.send(signal.SIGSTOP)
    assert children(place) < 30, "the first operator had created all children before it was stopped"
    wait_until("the second operator holds the Lease", lambda: holder(place) not in ("", before))
    wait_until("the second operator creates the remaining children", lambda: children(place) == 30)
    first.send(signal.SIGCONT)
    assert first.wait(10) == 1
    taken = next(r for r in audit.requests(accounts[1].user) if r.right.verb == "update")
    # An Event may have been on its way when the operator was stopped. It changes no state, and the API server
    # cannot refuse it as out of date, as it does with the other writes.
    late = [
        request
        for request in audit.requests(accounts[0].user)
        if request.right.verb in WRITES
        and request.right.resource != "events"
        and request.received > taken.received
        and request.code < 400
    ]
    assert late == []
    assert "this process ends" in first.log.read_text()
    second.check()
