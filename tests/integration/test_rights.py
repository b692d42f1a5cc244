"""Least privilege: the chart grants exactly the rights that the operator uses.

These tests run last, when the audit log has the operator's requests during all the other tests.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.account_support import Account, Audit, Right, account
from tests.integration.operator_support import CONFIG_MAPS, Api, Operator, Run
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster
HERE = Path(__file__).parent
COVERED = {path.name for path in HERE.glob("test_operator_*.py")}
"""The test modules that together make the operator use all its rights."""
WATCHED = {"rftjobs", "jobs", "pods", "configmaps"}
UNSEEN = {
    Right("rft.dev", "rftjobs/finalizers", "update"): (
        "an admission plugin asks for it when a child names its owner; it is no request"
    ),
}
"""Rights that the audit log cannot show or that no test uses, with the reason why they are granted."""
WITH_KUEUE = {
    Right("kueue.x-k8s.io", "workloads", "list"),
    Right("visibility.kueue.x-k8s.io", "localqueues/pendingworkloads", "get"),
}
"""Rights that are used only where Kueue is installed, by the tests of test_kueue.py."""


def test_every_right_is_used_and_nothing_was_refused(
    request: pytest.FixtureRequest, operator: Operator, operator_account: Account
) -> None:
    ran = {item.path.name for item in request.session.items}
    if not ran >= COVERED or request.config.getoption("keyword"):
        pytest.skip(f"says something only together with all of {', '.join(sorted(COVERED))}")
    # A watch is logged when it ends.
    operator.stop()
    operator.start()
    asked = Audit().requests(operator_account.user)
    assert [one for one in asked if one.refused] == []
    used = {one.right for one in asked}
    granted = operator_account.rights
    assert used - granted == set(), "a role outside the chart grants these rights"
    assert granted - used - WITH_KUEUE == set(UNSEEN), "every right is used, or explained in UNSEEN"


@pytest.fixture
def everywhere(
    api: Api, operator: Operator, kubeconfig: Path, tmp_path: Path
) -> Iterator[tuple[Operator, Account]]:
    """An operator that serves all namespaces. It replaces the operator of the other tests."""
    operator.stop()
    cluster_wide = account(api, "rft-everywhere")
    credentials = cluster_wide.kubeconfig(kubeconfig, tmp_path / "kubeconfig")
    names = {"RFT_LEASE": cluster_wide.name, "RFT_TLS_SECRET": f"{cluster_wide.name}-ingest-tls"}
    other = Operator(credentials, api.namespace, tmp_path / "log", everywhere=True, **names)
    try:
        other.start()
        yield other, cluster_wide
        other.stop()
    finally:
        other.kill()
        cluster_wide.remove()
        operator.start()


def test_the_cluster_role_is_enough_to_serve_all_namespaces(
    submit: Callable[..., Run], everywhere: tuple[Operator, Account], api: Api
) -> None:
    operator, cluster_wide = everywhere
    run = submit()
    run.child()
    pod = run.pod()
    ca = wait_until("the CA", lambda: api.find(CONFIG_MAPS, f"{run.child_name}-ca"))["data"]["ca.crt"]
    assert operator.push(ca, run.token(pod), b"{}") == 400, (
        "the sender is authenticated, only the body is refused"
    )
    run.end_pod(pod, 11, "line 3 is not JSON")
    run.wait_for_phase("Failed")
    # A watch is logged when it ends.
    operator.stop()
    wait_until("the watches are logged", lambda: watched_everywhere(cluster_wide) == WATCHED)
    asked = Audit().requests(cluster_wide.user)
    assert [one for one in asked if one.refused] == []
    assert {one.right for one in asked} <= cluster_wide.rights


def watched_everywhere(account: Account) -> set[str]:
    """Return the resources that were watched in all namespaces with one request."""
    asked = Audit().requests(account.user)
    return {one.right.resource for one in asked if one.right.verb == "watch" and not one.namespace}
