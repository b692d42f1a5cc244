"""What the controller reads from the API server after an event of each kind.

An event may also come while the controller reads.
"""

from collections.abc import Callable
from typing import Any, cast

import pytest

from rft_advice.baseline import ANNOTATION
from rft_api.validation import parse
from rft_operator.cluster import ClusterError, Conflict
from rft_operator.controller import Controller
from rft_operator.ingest.cache import Chains
from rft_operator.ingest.reports import Reports
from rft_operator.objects.config import config_map, run_config
from rft_operator.objects.job import child_job
from rft_operator.objects.names import LABEL_JOB_UID, Owner, owner_of
from rft_operator.objects.pod import Image
from rft_operator.observe import RawState
from rft_operator.queue import Key
from rft_operator.settings import Settings
from rft_planner.plan import plan
from tests.unit.reconcile_support import UID, rftjob

Json = dict[str, Any]
KEY: Key = ("team", "sums")
SETTINGS = Settings("trainer:1", read_nodes=False, read_kueue=False)


def children(document: Json) -> tuple[Json, Json, Json]:
    """Return the Job, the ConfigMap and a running pod of an RFTJob, as an API server returns them."""
    owner, spec = owner_of(document), parse(document).spec
    planned = plan(spec, UID)
    job = child_job(owner, spec, planned, Image("trainer:1", "Always"), reports=False, counts=False)
    config = config_map(owner, run_config(owner, spec, planned, None))
    for uid, made in (("job-1", job), ("config-1", config)):
        made["metadata"] |= {"uid": uid, "creationTimestamp": "2026-11-22T10:00:00Z"}
    pod = {
        "metadata": {
            "name": "sums-x-1",
            "uid": "pod-1",
            "labels": {LABEL_JOB_UID: UID},
            "ownerReferences": [{"kind": "Job", "uid": "job-1", "controller": True}],
        },
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running"},
    }
    return job, config, pod


def merged(target: Any, patch: Any) -> Any:
    """Return ``target`` with a JSON merge patch applied."""
    if not isinstance(patch, dict):
        return patch
    old = target if isinstance(target, dict) else {}
    new = {name: merged(old.get(name), value) for name, value in patch.items()}
    return {name: value for name, value in {**old, **new}.items() if value is not None}


class FakeCluster:
    """A fake cluster with one RFTJob and its children. It records what the controller reads."""

    def __init__(self, document: Json) -> None:
        self.jobs: dict[str, Json] = {"sums": document}
        self.child, self.config, self.pod = children(document)
        self.reads: list[str] = []
        self.during: Callable[[], None] = lambda: None
        """A function that is called once, during the next read of the children. Tests set it."""

    def job(self, namespace: str, name: str) -> Json | None:
        self.reads.append(f"RFTJob {name}")
        return self.jobs.get(name)

    def server_version(self) -> Json:
        return {"major": "1", "minor": "36"}

    def has_group(self, group: str) -> bool:
        return False

    def quotas(self, namespace: str) -> list[Json]:
        return []

    def limit_ranges(self, namespace: str) -> list[Json]:
        return []

    def state(self, owner: Owner, baseline: str | None, pods_version: str) -> RawState:
        self.reads.append("everything")
        self._interrupt()
        found = self.jobs.get(baseline) if baseline is not None else None
        return RawState(job=self.child, config=self.config, pods=(self.pod,), baseline=found)

    def child_and_pods(self, owner: Owner, pods_version: str) -> tuple[Json, tuple[Json, ...]]:
        self.reads.append(f"Job and pods at {pods_version}")
        pods = (self.pod,)
        self._interrupt()
        return self.child, pods

    def patch_status(self, document: Json, patch: Json) -> Json:
        version = int(document["metadata"]["resourceVersion"]) + 1
        status = merged(document.get("status", {}), patch)
        metadata = {**document["metadata"], "resourceVersion": str(version)}
        self.jobs["sums"] = {**document, "metadata": metadata, "status": status}
        return self.jobs["sums"]

    def obstacles(self, namespace: str) -> list[Json]:
        raise AssertionError("the pod runs, so the controller must not read Events")

    def create(self, manifest: Json) -> Json:
        assert manifest["kind"] == "Event", "the controller may create only Events here"
        return manifest

    def _interrupt(self) -> None:
        during, self.during = self.during, lambda: None
        during()


def settled(document: Json | None = None) -> tuple[FakeCluster, Controller]:
    """Return a fake cluster with one RFTJob, and a controller that has cached the RFTJob's state.

    ``document`` is the RFTJob. If it is None, an RFTJob in the phase Running is used.
    """
    cluster = FakeCluster(document or rftjob({"phase": "Running", "startTime": "2026-11-22T10:00:00Z"}))
    controller = Controller(cast(Any, cluster), Reports(), SETTINGS, Chains(lambda: 0.0))
    controller.on_update(KEY, cluster.jobs["sums"])
    controller.process(KEY)
    cluster.reads.clear()
    controller.process(KEY)
    assert cluster.reads == [], "without a change the controller must read nothing"
    return cluster, controller


def test_after_an_event_of_a_pod_only_job_and_pods_are_read() -> None:
    cluster, controller = settled()
    cluster.pod["status"]["phase"] = "Failed"
    controller.on_child_event(KEY, "7", job_or_pod=True)
    controller.process(KEY)
    controller.process(KEY)
    assert cluster.reads == ["Job and pods at 7"]
    assert cluster.jobs["sums"]["status"]["failedPods"] == 1


def test_after_an_event_of_a_config_map_everything_is_read() -> None:
    cluster, controller = settled()
    controller.on_child_event(KEY, "7", job_or_pod=True)
    controller.on_child_event(KEY)
    controller.process(KEY)
    assert cluster.reads == ["everything"]


def test_after_an_event_during_the_read_job_and_pods_are_read_again() -> None:
    cluster, controller = settled()
    controller.on_child_event(KEY, "7", job_or_pod=True)
    cluster.during = lambda: controller.on_child_event(KEY, "8", job_or_pod=True)
    controller.process(KEY)
    controller.process(KEY)
    controller.process(KEY)
    assert cluster.reads == ["Job and pods at 7", "Job and pods at 8"]


def test_an_rftjob_deleted_during_the_read_of_its_job_and_pods_is_forgotten() -> None:
    cluster, controller = settled()

    def delete() -> None:
        del cluster.jobs["sums"]
        controller.on_delete(KEY)

    controller.on_child_event(KEY, "7", job_or_pod=True)
    cluster.during = delete
    controller.process(KEY)
    assert controller.process(KEY) is None
    assert cluster.reads == ["Job and pods at 7", "RFTJob sums"]


def test_after_a_change_of_the_rftjob_everything_is_read() -> None:
    cluster, controller = settled()
    controller.on_child_event(KEY, "7", job_or_pod=True)
    document = cluster.jobs["sums"]
    metadata = {**document["metadata"], "resourceVersion": "99", "labels": {"a": "b"}}
    cluster.jobs["sums"] = {**document, "metadata": metadata}
    controller.on_update(KEY, cluster.jobs["sums"])
    controller.on_child_event(KEY)
    controller.process(KEY)
    assert cluster.reads == ["everything"]


def test_a_baseline_created_after_the_start_is_compared_at_the_next_event_of_a_pod() -> None:
    document = rftjob({"phase": "Running", "startTime": "2026-11-22T10:00:00Z"})
    document["metadata"]["annotations"] = {ANNOTATION: "earlier"}
    cluster, controller = settled(document)
    assert "changes" not in cluster.jobs["sums"]["status"]["baseline"]
    cluster.jobs["earlier"] = rftjob(sampling={"temperature": 0.5})
    for _ in range(2):
        controller.on_child_event(KEY, "7", job_or_pod=True)
        controller.process(KEY)
    assert cluster.jobs["sums"]["status"]["baseline"]["changes"]
    assert cluster.reads == ["everything", "Job and pods at 7"], (
        "the controller must not read the baseline again after it compared the specs"
    )


class NewCluster(FakeCluster):
    """A fake cluster with an RFTJob that has no children yet. It records the objects that the controller
    sends as dry runs, and the objects that the controller creates.
    """

    def __init__(self, document: Json) -> None:
        super().__init__(document)
        self.asked: list[Json] = []
        self.made: list[Json] = []
        self.versions: dict[str, str] = {}
        """Resource version of each created object, by its kind."""
        self.exists: RawState = RawState()
        """The children that exist."""
        self.taken = ""
        """Name of an object that already exists, so that creating it fails."""
        self.refused = ""
        """Kind of the objects that the API server refuses."""
        self.has_dry_run = True

    @property
    def children(self) -> list[tuple[str, str]]:
        """Kind and name of each created object, without Events."""
        return [named(each) for each in self.made if each["kind"] != "Event"]

    def state(self, owner: Owner, baseline: str | None, pods_version: str) -> RawState:
        self.reads.append("everything")
        return self.exists

    def claim(self, namespace: str, name: str) -> Json | None:
        return None

    def takes(self, manifest: Json) -> bool:
        self.asked.append(manifest)
        if self.has_dry_run:
            self._admit(manifest)
        return self.has_dry_run

    def create(self, manifest: Json) -> Json:
        self._admit(manifest)
        self.made.append(manifest)
        uid, version = f"uid-{len(self.made)}", str(100 + len(self.made))
        if manifest["kind"] != "Event":
            self.versions[manifest["kind"]] = version
            self._interrupt()
        return {**manifest, "metadata": {**manifest["metadata"], "uid": uid, "resourceVersion": version}}

    def _admit(self, manifest: Json) -> None:
        if manifest["metadata"]["name"] == self.taken:
            raise Conflict(409, "already exists")
        if manifest["kind"] == self.refused:
            raise ClusterError(403, "exceeded quota: few, requested: a=1, used: a=1, limited: a=1")


def named(manifest: Json) -> tuple[str, str]:
    """Return kind and name of an object."""
    return manifest["kind"], manifest["metadata"]["name"]


def new(**spec: Any) -> tuple[NewCluster, Controller, str]:
    """Return a fake cluster with a new RFTJob, its controller, and the name of the child Job."""
    document = rftjob(**spec)
    cluster = NewCluster(document)
    controller = Controller(cast(Any, cluster), Reports(), SETTINGS, Chains(lambda: 0.0))
    controller.on_update(KEY, document)  # as from a watch
    return cluster, controller, owner_of(document).child


@pytest.mark.parametrize("exists", [False, True])
def test_the_claim_for_models_is_made_before_the_child_job_and_may_exist(exists: bool) -> None:
    cache = {"claimTemplate": {"size": "40Gi"}}
    cluster, controller, child = new(model={"name": "SmolLM2-135M", "cache": cache})
    cluster.taken = f"{child}-hub" if exists else ""
    controller.process(KEY)
    claims = [] if exists else [("PersistentVolumeClaim", f"{child}-hub")]
    assert cluster.children == [("ConfigMap", child), *claims, ("Job", child)]


CLAIMS = {
    "model": {"name": "SmolLM2-135M", "cache": {"claimTemplate": {"size": "40Gi"}}},
    "storage": {"claimTemplate": {"size": "5Gi"}},
}


def test_the_api_server_is_asked_about_the_job_and_its_claims_before_anything_is_made() -> None:
    cluster, controller, child = new(**CLAIMS)
    controller.process(KEY)
    claims = [("PersistentVolumeClaim", child), ("PersistentVolumeClaim", f"{child}-hub")]
    assert [named(each) for each in cluster.asked] == [("Job", child), *claims]
    assert cluster.children == [("ConfigMap", child), *claims, ("Job", child)]
    of_job = [each for each in (*cluster.asked, *cluster.made) if each["kind"] == "Job"]
    assert of_job[0] == of_job[1], "the dry run must check what is created"


@pytest.mark.parametrize("kind", ["Job", "PersistentVolumeClaim"])
def test_a_run_that_the_api_server_refuses_leaves_nothing_and_is_asked_about_again(kind: str) -> None:
    cluster, controller, child = new(**CLAIMS)
    cluster.refused = kind
    for _ in range(3):
        with pytest.raises(ClusterError, match="exceeded quota"):  # the work queue then retries with back-off
            controller.process(KEY)
    assert cluster.children == []
    assert [each["kind"] for each in cluster.asked].count(kind) == 3
    status = cluster.jobs["sums"]["status"]
    assert f"{kind} {child} cannot be created: 403: exceeded quota: few" in status["message"]
    assert "startTime" not in status
    cluster.refused = ""
    document = cluster.jobs["sums"]
    spec = {**document["spec"], "storage": {"claimTemplate": {"size": "2Gi"}}, "training": {"epochs": 4}}
    controller.on_update(KEY, {**document, "spec": spec, "metadata": {**document["metadata"], **EDITED}})
    controller.process(KEY)
    made = {each["kind"]: each for each in cluster.made[::-1] if each["kind"] != "Event"}
    assert made["PersistentVolumeClaim"]["spec"]["resources"]["requests"] == {"storage": "2Gi"}
    assert '"epochs": 4' in made["ConfigMap"]["data"]["run.json"]
    assert "Job" in made


EDITED = {"resourceVersion": "1000", "generation": 2}


def test_a_job_is_made_unasked_if_a_webhook_makes_dry_runs_impossible() -> None:
    cluster, controller, child = new()
    cluster.has_dry_run = False
    controller.process(KEY)
    assert cluster.children == [("ConfigMap", child), ("Job", child)]


def test_events_of_children_as_the_controller_created_them_need_no_reads() -> None:
    cluster, controller, _ = new()
    controller.process(KEY)
    for kind in ("ConfigMap", "Job"):
        controller.on_child_event(KEY, job_or_pod=kind == "Job", version=cluster.versions[kind])
        controller.process(KEY)
    assert cluster.jobs["sums"]["status"]["phase"] == "Pending"
    assert cluster.reads == []
    controller.on_child_event(KEY, "7", job_or_pod=True)
    controller.process(KEY)
    assert cluster.reads == ["Job and pods at 7"]


def test_an_event_of_a_created_child_may_come_before_the_answer_to_its_creation() -> None:
    cluster, controller, _ = new()
    cluster.during = lambda: controller.on_child_event(KEY, version=cluster.versions["ConfigMap"])
    controller.process(KEY)
    controller.process(KEY)
    assert cluster.reads == []


@pytest.mark.parametrize("version", ["", "7"], ids=["deleted", "changed"])
def test_another_event_of_a_config_map_while_children_are_created_causes_a_complete_read(
    version: str,
) -> None:
    cluster, controller, _ = new()
    cluster.during = lambda: controller.on_child_event(KEY, version=version)
    controller.process(KEY)
    controller.process(KEY)
    assert cluster.reads == ["everything"]


def test_a_pod_that_appears_while_children_are_created_causes_a_read_of_job_and_pods() -> None:
    cluster, controller, _ = new()
    cluster.during = lambda: controller.on_child_event(KEY, "9", job_or_pod=True)
    controller.process(KEY)
    controller.process(KEY)
    assert cluster.reads == ["Job and pods at 9"]


def test_nothing_is_asked_if_only_the_job_is_missing() -> None:
    cluster, controller, child = new()
    cluster.exists = RawState(config=cluster.config)
    cluster.jobs["sums"]["status"] = {"phase": "Pending"}
    controller.on_update(KEY, cluster.jobs["sums"])
    controller.process(KEY)
    assert cluster.children == [("Job", child)]
    assert cluster.asked == []
