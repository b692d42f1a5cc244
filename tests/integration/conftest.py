"""Fixtures: a namespace with the CRD, and an operator process from this checkout outside the cluster."""

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from rft_operator.cluster import ClusterError, connect
from tests.cluster.layout import default_layout
from tests.cluster.provider import choose_provider
from tests.integration.account_support import Account, account
from tests.integration.kueue_release_support import clear_interrupted
from tests.integration.operator_support import (
    OPERATORS,
    RFTJOBS,
    ROOT,
    Api,
    Object,
    Operator,
    Run,
    create_namespace,
    install_crd,
)
from tests.waiting import wait_until


@pytest.fixture(scope="session")
def kubeconfig() -> Path:
    """The kubeconfig of the test cluster."""
    named = os.environ.get("RFT_TEST_KUBECONFIG")
    path = Path(named) if named else ROOT / ".cluster" / "kubeconfig"
    if not path.exists():
        pytest.skip("no test cluster: set RFT_TEST_KUBECONFIG, or start one with `make cluster-up`")
    return path


@pytest.fixture(scope="session")
def described(kubeconfig: Path) -> dict[str, str]:
    """Data about the test cluster, e.g. ``host_address``. See ``Provider.describe`` in ``tests.cluster``.

    For an external cluster there is only the provider's name.
    """
    return choose_provider(default_layout()).describe()


@pytest.fixture(scope="session")
def api(request: pytest.FixtureRequest, kubeconfig: Path) -> Iterator[Api]:
    """The API server, with the CRD and a new namespace that no other operator serves."""
    api = Api(connect(str(kubeconfig)), f"rft-it-{uuid4().hex[:8]}")
    try:
        api.call("GET", "version")
    except ClusterError as error:
        pytest.skip(f"the test cluster of {kubeconfig} does not answer ({error}); run `make cluster-up`")
    clear_interrupted(request.config, kubeconfig)
    stopped = _stop_other_operators(api)
    install_crd(api)
    create_namespace(api)
    yield api
    api.call("DELETE", f"api/v1/namespaces/{api.namespace}")
    for path, replicas in stopped:
        api.call("PATCH", path, {"spec": {"replicas": replicas}})


def _stop_other_operators(api: Api) -> list[tuple[str, int]]:
    """Stop the operators that serve all namespaces: scale their Deployments to 0 replicas.

    Otherwise they would serve the tests' namespace too. Return the path and the former number of replicas of
    each Deployment, so that the caller can restore it. An operator in an external cluster is not stopped. The
    tests are skipped instead.
    """
    stopped = []
    for deployment in api.call("GET", OPERATORS).get("items") or []:
        metadata, replicas = deployment["metadata"], deployment["spec"].get("replicas", 1)
        if not replicas:
            continue
        if "RFT_TEST_KUBECONFIG" in os.environ:
            pytest.skip(f"the operator {metadata['namespace']}/{metadata['name']} serves this cluster")
        path = f"apis/apps/v1/namespaces/{metadata['namespace']}/deployments/{metadata['name']}"
        api.call("PATCH", path, {"spec": {"replicas": 0}})
        stopped.append((path, replicas))
        wait_until("the other operator's pod has ended", partial(_has_no_pods, api, path), 60)
    return stopped


def _has_no_pods(api: Api, path: str) -> bool:
    return not api.call("GET", path).get("status", {}).get("replicas")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run test_rights.py last: it checks the requests that the operator sent during all other tests."""
    items.sort(key=lambda item: item.path == Path(__file__).with_name("test_rights.py"))


@pytest.fixture(scope="session")
def operator_account(api: Api) -> Iterator[Account]:
    """The service account that the chart creates for an operator of one namespace."""
    made = account(api, "rft-operator", f"watch.namespaces={{{api.namespace}}}")
    yield made
    made.remove()


@pytest.fixture(scope="session")
def operator(
    api: Api, kubeconfig: Path, operator_account: Account, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    """A running operator with the rights that its chart grants."""
    folder = tmp_path_factory.mktemp("operator")
    credentials = operator_account.kubeconfig(kubeconfig, folder / "kubeconfig")
    operator = Operator(credentials, api.namespace, folder / "log")
    operator.start()
    yield operator
    operator.stop()


@pytest.fixture
def manifest(request: pytest.FixtureRequest) -> Callable[..., Object]:
    """Return a function that makes a small valid RFTJob manifest, named after the test."""
    stem = request.node.name.replace("_", "-").split("[")[0].removeprefix("test-")[:36].strip("-")
    name = f"{stem}-{uuid4().hex[:6]}"

    def make(**spec: Any) -> Object:
        return {
            "apiVersion": "rft.dev/v1alpha1",
            "kind": "RFTJob",
            "metadata": {"name": name},
            "spec": {
                "model": {"name": "/models/SmolLM2-135M"},
                "dataset": {"configMap": {"name": "rows"}},
                "graders": [{"name": "right", "numeric": {}}],
                "storage": {"persistentVolumeClaim": {"claimName": "runs"}},
                "resources": {"accelerator": {"name": "cpu"}, "nodeSelector": {"rft.dev/none": "here"}},
                **spec,
            },
        }

    return make


@pytest.fixture
def submit(api: Api, operator: Operator, manifest: Callable[..., Object]) -> Iterator[Callable[..., Run]]:
    """Return a function that creates an RFTJob. The RFTJob is deleted after the test."""
    made: list[str] = []

    def create(**spec: Any) -> Run:
        run = Run(api, api.create(RFTJOBS, json.loads(json.dumps(manifest(**spec)))))
        made.append(run.name)
        return run

    yield create
    operator.check()
    for name in made:
        if api.find(RFTJOBS, name) is not None:
            api.delete(RFTJOBS, name)
