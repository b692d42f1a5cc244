"""The API server refuses an object of a run: what the status says, what is left, and what can be corrected.

Before the operator creates the first object of a run, it creates the child Job and the claims as a dry run.
If one of them is refused, the run leaves nothing, and each field of its spec can be corrected. The pod has no
dry run: it is refused only after the child Job exists.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from rft_operator.cluster import connect
from rft_run.config import CONFIG_FILE, RunConfig
from tests.integration.operator_support import CONFIG_MAPS, JOBS, RFTJOBS, Api, Object, Operator, Run
from tests.integration.proxy_support import Proxy, answer
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster
Submit = Callable[..., Run]
CLAIMS = "api/v1/namespaces/{}/persistentvolumeclaims"
QUOTAS = "api/v1/namespaces/{}/resourcequotas"
LIMITS = "api/v1/namespaces/{}/limitranges"
TOLD_SECONDS = 30.0
"""Time limit in seconds until the status says that a pod is refused."""


@contextmanager
def existing(api: Api, path: str, kind: str, name: str, spec: Object) -> Iterator[None]:
    """Create an object in the tests' namespace, and delete it after the ``with`` block."""
    api.create(path, {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
    try:
        yield
    finally:
        api.delete(path, name)


@contextmanager
def quota(api: Api, hard: Mapping[str, str]) -> Iterator[None]:
    """Limit the namespace by a ResourceQuota during the ``with`` block."""
    with existing(api, QUOTAS, "ResourceQuota", "few", {"hard": dict(hard)}):
        # Until Kubernetes has counted the quota's use once, the API server refuses with another message.
        wait_until("the quota is counted", lambda: api.get(QUOTAS, "few").get("status", {}).get("used"))
        yield


def children(api: Api, run: Run) -> set[str]:
    """Return which children of a run exist."""
    named = {
        "Job": (JOBS, run.child_name),
        "snapshot": (CONFIG_MAPS, run.child_name),
        "CA": (CONFIG_MAPS, f"{run.child_name}-ca"),
        "claim": (CLAIMS, run.child_name),
    }
    return {child for child, (path, name) in named.items() if api.find(path, name) is not None}


def _told(run: Run, words: tuple[str, ...]) -> str:
    ready = run.condition("Ready")
    message = str(ready.get("message") or "")
    return message if ready.get("reason") == "FailedCreate" and all(word in message for word in words) else ""


def refused(run: Run, *words: str) -> None:
    """Wait until Ready has the reason FailedCreate, and a message that contains each of ``words``."""
    try:
        wait_until("the refusal is told", partial(_told, run, words))
    except AssertionError as error:
        raise AssertionError(f"{error}: {words} in {run.status}") from error


def snapshot(api: Api, run: Run) -> RunConfig:
    """Return the spec and plan that the trainer of a run reads."""
    return RunConfig.model_validate_json(api.get(CONFIG_MAPS, run.child_name)["data"][CONFIG_FILE])


def claims_of(job: Object) -> list[str]:
    """Return the names of the claims that the pod of a Job mounts."""
    volumes = job["spec"]["template"]["spec"]["volumes"]
    return [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]


def test_a_refused_job_leaves_nothing_and_each_field_can_be_corrected(submit: Submit, api: Api) -> None:
    with quota(api, {"count/jobs.batch": "0"}):
        run = submit(storage={"claimTemplate": {"size": "1Gi"}})
        refused(run, f"Job {run.child_name} cannot be created", "ResourceQuota few. The operator tries")
        assert children(api, run) == set()
        assert "startTime" not in run.status
        edit = {"training": {"epochs": 4}, "storage": {"claimTemplate": {"size": "2Gi"}}}
        api.patch(RFTJOBS, run.name, {"spec": edit})
    run.child()
    assert api.get(CLAIMS, run.child_name)["spec"]["resources"]["requests"] == {"storage": "2Gi"}
    assert snapshot(api, run).spec.training.epochs == 4
    wait_until("the run has started", lambda: "startTime" in run.status)
    assert run.condition("Accepted")["reason"] == "Accepted"


@pytest.mark.parametrize(
    ("hard", "field"),
    [
        ({"persistentvolumeclaims": "0"}, "raise the ResourceQuota few"),
        ({"requests.storage": "1Mi"}, "Lower spec.storage.claimTemplate.size"),
    ],
    ids=["number", "size"],
)
def test_a_refused_claim_leaves_nothing_and_its_storage_can_be_replaced(
    submit: Submit, api: Api, hard: dict[str, str], field: str
) -> None:
    with quota(api, hard):
        run = submit(storage={"claimTemplate": {"size": "1Gi"}})
        refused(run, f"PersistentVolumeClaim {run.child_name} cannot be created", field)
        assert children(api, run) == set()
        assert "startTime" not in run.status
        other = {"claimTemplate": None, "persistentVolumeClaim": {"claimName": "runs"}}
        api.patch(RFTJOBS, run.name, {"spec": {"storage": other, "training": {"loraRank": 16}}})
        assert claims_of(run.child()) == ["runs"]
    assert children(api, run) == {"Job", "snapshot", "CA"}
    assert snapshot(api, run).spec.training.lora_rank == 16


def test_a_job_that_the_api_server_calls_invalid_leaves_nothing_and_names_the_field(
    submit: Submit, api: Api
) -> None:
    twice = {"name": "e", "mountPath": "/data/train", "configMap": "rows"}
    run = submit(template={"volumes": [twice]}, storage={"claimTemplate": {"size": "1Gi"}})
    refused(run, "must be unique", "Correct spec.template.volumes[0].mountPath.")
    assert children(api, run) == set()
    api.patch(RFTJOBS, run.name, {"spec": {"template": {"volumes": [{**twice, "mountPath": "/extra"}]}}})
    assert run.child()


SMALL = {"limits": [{"type": "Container", "max": {"memory": "10Mi"}}]}


@pytest.mark.parametrize(
    ("path", "kind", "limits", "words"),
    [
        (QUOTAS, "ResourceQuota", {"hard": {"limits.memory": "1Mi"}}, ("few", "Lower spec.resources.memory")),
        (LIMITS, "LimitRange", SMALL, ("Lower spec.resources.memory to 10Mi",)),
    ],
    ids=["ResourceQuota", "LimitRange"],
)
def test_a_refused_pod_is_told_within_seconds_although_nobody_asked_about_it(
    submit: Submit, api: Api, path: str, kind: str, limits: Object, words: tuple[str, ...]
) -> None:
    with existing(api, path, kind, "few", limits):
        run = submit()
        run.child()
        began = time.monotonic()
        refused(run, "The child Job cannot create its pod", *words)
        seconds = time.monotonic() - began
    assert seconds < TOLD_SECONDS


def test_what_makes_a_pod_refused_can_be_corrected_while_the_job_is_suspended(
    submit: Submit, api: Api
) -> None:
    run = submit(template={"serviceAccountName": "reader"})
    refused(run, "Create the ServiceAccount reader, or correct spec.template.serviceAccountName")
    api.patch(RFTJOBS, run.name, {"spec": {"suspend": True}})
    run.wait_for_phase("Suspended")
    edit = {"suspend": False, "template": {"serviceAccountName": "default"}}
    api.patch(RFTJOBS, run.name, {"spec": edit})
    assert run.pod()["spec"]["serviceAccountName"] == "default"


@pytest.fixture
def elsewhere(api: Api, kubeconfig: Path) -> Iterator[Api]:
    """Another namespace. The operator of the other tests does not serve it."""
    other = Api(connect(str(kubeconfig)), f"rft-dry-{uuid4().hex[:8]}")
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other.namespace}}
    api.call("POST", "api/v1/namespaces", body)
    yield other
    api.call("DELETE", f"api/v1/namespaces/{other.namespace}")


@pytest.fixture
def without_dry_runs(elsewhere: Api, kubeconfig: Path, tmp_path: Path) -> Iterator[Operator]:
    """An operator of the namespace ``elsewhere``. A proxy refuses its dry runs.

    The refusal is that of an API server with a webhook that has side effects. Since Kubernetes 1.22 no such
    webhook can be created, but older ones remain in a cluster.
    """
    said = 'admission webhook "a.example.com" does not support dry run'
    body = {"kind": "Status", "status": "Failure", "reason": "BadRequest", "code": 400, "message": said}
    proxy = Proxy(kubeconfig)
    proxy.refuse("dryRun=All", answer(400, body))
    operator = Operator(proxy.kubeconfig(tmp_path / "kubeconfig"), elsewhere.namespace, tmp_path / "log")
    try:
        operator.start()
        yield operator
    finally:
        operator.stop()
        proxy.close()


def test_a_job_is_made_where_a_webhook_makes_dry_runs_impossible(
    elsewhere: Api, without_dry_runs: Operator, manifest: Callable[..., Object]
) -> None:
    run = Run(elsewhere, elsewhere.create(RFTJOBS, manifest()))
    assert run.child()
    said = f"Job {elsewhere.namespace}/{run.child_name} is created without a dry run"
    assert said in without_dry_runs.log.read_text()
