"""Least privilege: the chart grants exactly the rights that the operator uses.

The tests read the operator's requests from the audit log. They run last, so the log contains the requests of
all other tests.
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
"""Modules with tests in which the operator uses all rights that the chart grants, except for ``UNSEEN`` and
``WITH_KUEUE``."""
WATCHED = {"rftjobs", "jobs", "pods", "configmaps"}
UNSEEN = {
    Right("", "pods", "patch"): "an operator labels its pod as leader, and the tests' operators have no pods",
    Right("rft.dev", "rftjobs/finalizers", "update"): (
        "only an admission plugin checks this right, for owner references; the operator sends no such request"
    ),
}
"""Rights that the chart grants although the audit log shows no use of them, each with the reason."""
WITH_KUEUE = {
    Right("kueue.x-k8s.io", "workloads", "list"),
    Right("visibility.kueue.x-k8s.io", "localqueues/pendingworkloads", "get"),
}
"""Rights that the operator uses only with Kueue. test_kueue.py tests them."""


def test_every_right_is_used_and_nothing_was_refused(
    request: pytest.FixtureRequest, operator: Operator, operator_account: Account
) -> None:
    ran = {item.path.name for item in request.session.items}
    if not ran >= COVERED or request.config.getoption("keyword"):
        pytest.skip(f"this test needs all of these modules to run before it: {', '.join(sorted(COVERED))}")
    # A watch is logged when it ends.
    operator.stop()
    operator.start()
    asked = Audit().requests(operator_account.user)
    assert [one for one in asked if one.refused] == []
    used = {one.right for one in asked}
    granted = operator_account.rights
    assert used - granted == set(), "the operator used these rights, but the chart does not grant them"
    assert granted - used - WITH_KUEUE == set(UNSEEN), (
        "the chart grants rights that are neither used nor listed in UNSEEN"
    )


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
        "the operator accepts the token and refuses only the body"
    )
    run.end_pod(pod, 11, "line 3 is not JSON")
    run.wait_for_phase("Failed")
    # A watch is logged when it ends.
    operator.stop()
    wait_until("the audit log has the watches", lambda: watched_everywhere(cluster_wide) == WATCHED)
    asked = Audit().requests(cluster_wide.user)
    assert [one for one in asked if one.refused] == []
    assert {one.right for one in asked} <= cluster_wide.rights


def watched_everywhere(account: Account) -> set[str]:
    """Return the kinds of resources that the account watched by one request for all namespaces."""
    asked = Audit().requests(account.user)
    return {one.right.resource for one in asked if one.right.verb == "watch" and not one.namespace}
