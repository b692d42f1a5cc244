"""Why a child Job waits, as Kueue's Workload says it; the raw texts are those of a Kueue 0.17."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from rft_api.status import Plan
from rft_operator.cluster import ClusterError, NotFound, Unavailable
from rft_operator.kueue import Check, Workload, held, other_kind, rounded, workload
from rft_operator.settings import from_env
from rft_operator.workloads import JOB_UID, Workloads
from tests.unit.chart_support import one, rendered

Json = dict[str, Any]
NAME = "rft-rft-operator"
KEY, OTHER = ("team", "sums"), ("team", "words")
SHORT = (
    "couldn't assign flavors to pod set main: insufficient unused quota for cpu in flavor cpu, 1 more needed"
)
BY = "Preempted to accommodate a workload (UID: a, JobUID: b) due to prioritization in the ClusterQueue"


def condition(kind: str, status: str, reason: str = "", message: str = "", at: str = "") -> Json:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at}


def raw(*conditions: Json, uid: str = "job-1", **status: Any) -> Json:
    return {
        "metadata": {"name": "job-sums-5b0d2", "labels": {JOB_UID: uid}},
        "spec": {"queueName": "team", "active": True},
        "status": {"conditions": list(conditions), **status},
    }


WAITS = condition("QuotaReserved", "False", "Pending", SHORT)
PREEMPTED = (
    condition("Evicted", "True", "Preempted", BY, "2026-11-28T18:00:00Z"),
    condition("Preempted", "True", "InClusterQueue", BY, "2026-11-28T18:00:00Z"),
)


def told(*conditions: Json, **status: Any) -> tuple[str, str]:
    found = held(workload(raw(*conditions, **status)), "team")
    return found.reason, found.message


def test_what_is_short_and_by_how_much_is_told() -> None:
    assert told(WAITS) == ("Queued", f"The child Job waits in LocalQueue team: {SHORT}.")


def test_a_queue_that_does_not_exist_is_told_as_what_somebody_has_to_mend() -> None:
    missing = condition("QuotaReserved", "False", "Inadmissible", "LocalQueue team doesn't exist")
    assert told(missing) == (
        "Inadmissible",
        "The child Job waits in LocalQueue team: LocalQueue team doesn't exist.",
    )


def test_who_preempted_it_and_when_is_told_beside_what_is_short_now() -> None:
    reason, message = told(WAITS, *PREEMPTED)
    assert reason == "Preempted"
    assert message == (
        f"The child Job waits in LocalQueue team: {SHORT}. "
        f"Kueue stopped it at 2026-11-28T18:00:00Z (Preempted): {BY}."
    )


def test_an_eviction_that_is_over_is_not_told() -> None:
    over = condition("Evicted", "False", "QuotaReserved", "Previously: " + BY)
    assert told(WAITS, over)[0] == "Queued"
    assert "stopped" not in told(WAITS, over)[1]


def test_a_deactivated_workload_says_what_queues_it_again() -> None:
    found = replace(workload(raw(WAITS)), active=False)
    assert held(found, "team").reason == "Inadmissible"
    assert "job-sums-5b0d2 is deactivated" in held(found, "team").message
    assert "Set spec.active to true" in held(found, "team").message


@pytest.mark.parametrize(
    ("state", "reason"), [("Pending", "Queued"), ("Retry", "Queued"), ("Rejected", "Inadmissible")]
)
def test_an_admission_check_that_is_not_ready_is_named(state: str, reason: str) -> None:
    checks = [
        {"name": "budget", "state": "Ready", "message": ""},
        {"name": "capacity", "state": state, "message": "no nodes yet"},
    ]
    said = told(condition("QuotaReserved", "True", "QuotaReserved"), admissionChecks=checks)
    assert said == (reason, f"AdmissionCheck capacity says {state}: no nodes yet.")


def test_a_check_that_waits_for_the_quota_is_not_what_the_job_waits_for() -> None:
    assert SHORT in told(WAITS, admissionChecks=[{"name": "capacity", "state": "Pending"}])[1]


def test_until_when_kueue_leaves_it_aside_is_told() -> None:
    later = told(WAITS, requeueState={"count": 2, "requeueAt": "2026-11-28T18:05:00Z"})
    assert "until 2026-11-28T18:05:00Z" in later[1]


def test_without_a_workload_the_queue_is_named_or_that_there_is_none() -> None:
    assert held(None, "team").message == "The child Job is suspended until LocalQueue team admits it."
    assert "names no queue" in held(None, "").message


def test_a_workload_of_which_nothing_is_known_yet_waits() -> None:
    bare: Json = {"metadata": {"name": "w"}}
    assert workload(bare) == Workload("w")
    assert held(workload(bare), "team").message == "The child Job waits in LocalQueue team."
    assert workload(raw(admissionChecks=[{"name": "a"}])).checks == (Check("a", "Pending"),)


@pytest.mark.parametrize(
    ("place", "said"),
    [(0, ""), (1, "number 1"), (10, "number 10"), (11, "among the first 20"), (9999, "5000")],
)
def test_a_place_far_back_is_rounded_so_that_not_every_admission_moves_it(place: int, said: str) -> None:
    message = held(replace(workload(raw(WAITS)), place=rounded(place)), "team").message
    assert (f"{said} there." in message) == bool(said)


def test_the_place_in_the_queue_is_asked_for_once_a_queue() -> None:
    asked: list[tuple[str, str]] = []

    def places(namespace: str, queue: str) -> list[Json]:
        asked.append((namespace, queue))
        names = ("another", "job-sums-5b0d2")
        return [{"metadata": {"name": n}, "positionInLocalQueue": i} for i, n in enumerate(names)]

    workloads = Workloads(lambda _: [raw(WAITS), raw(WAITS, uid="job-2")], places)
    workloads.of(KEY, "job-1")
    workloads.of(OTHER, "job-2")
    workloads.poll()
    found = workloads.of(KEY, "job-1")
    assert found is not None
    assert (found.place, asked) == (2, [("team", "team")])


def test_a_kueue_that_tells_no_places_is_no_error() -> None:
    def places(namespace: str, queue: str) -> list[Json]:
        raise NotFound(404, "no such group")

    workloads = Workloads(lambda _: [raw(WAITS)], places)
    workloads.of(KEY, "job-1")
    assert workloads.poll() == [KEY]


class Server:
    """Workloads that can be read, or not."""

    def __init__(self) -> None:
        self.items: list[Json] = [raw(WAITS)]
        self.error: ClusterError | None = None
        self.reads: list[str] = []
        self.workloads = Workloads(self._read)

    def _read(self, namespace: str) -> list[Json]:
        self.reads.append(namespace)
        if self.error is not None:
            raise self.error
        return self.items


def test_nothing_is_read_while_no_job_waits() -> None:
    server = Server()
    assert server.workloads.poll() == []
    assert server.reads == []


def test_what_is_new_is_returned_once_and_known_then() -> None:
    server = Server()
    assert server.workloads.of(KEY, "job-1") is None
    assert server.workloads.of(OTHER, "job-2") is None
    assert server.workloads.poll() == [KEY]
    assert server.workloads.poll() == []
    assert server.reads == ["team", "team"], "one list for all that wait in a namespace"
    found = server.workloads.of(KEY, "job-1")
    assert found is not None
    assert found.pending_message == SHORT
    server.items = [raw(condition("QuotaReserved", "True"))]
    assert server.workloads.poll() == [KEY]


def test_a_job_that_goes_on_is_forgotten() -> None:
    server = Server()
    server.workloads.of(KEY, "job-1")
    server.workloads.poll()
    assert server.workloads.of(KEY, None) is None
    assert server.workloads.poll() == []
    assert len(server.reads) == 1
    assert server.workloads.of(KEY, "job-1") is None, "what was known is not good any more"


def test_a_cluster_without_kueue_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    server.error = NotFound(404, "no such group")
    server.workloads.of(KEY, "job-1")
    with caplog.at_level(logging.INFO):
        assert server.workloads.poll() == []
    assert caplog.records == []
    server.error = None
    assert server.workloads.poll() == [KEY], "it was installed meanwhile"


def test_a_refusal_is_logged_once_and_keeps_what_was_known(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    server.workloads.of(KEY, "job-1")
    server.workloads.poll()
    server.error = ClusterError(403, "workloads is forbidden")
    assert server.workloads.poll() == []
    assert server.workloads.poll() == []
    assert server.workloads.of(KEY, "job-1") is not None
    (record,) = caplog.records
    assert "workloads is forbidden" in record.message


def test_of_a_list_that_breaks_off_no_part_is_used() -> None:
    breaks = False

    def read(namespace: str) -> Iterator[Json]:
        yield raw(condition("QuotaReserved", "True")) if breaks else raw(WAITS)
        if breaks:
            raise Unavailable(0, "GET workloads: BrokenOff")

    workloads = Workloads(read)
    workloads.of(KEY, "job-1")
    assert workloads.poll() == [KEY]
    before, breaks = workloads.of(KEY, "job-1"), True
    assert workloads.poll() == []
    assert workloads.of(KEY, "job-1") == before


def test_where_it_may_not_read_it_does_not_try() -> None:
    workloads = Workloads(None)
    assert workloads.of(KEY, "job-1") is None
    assert workloads.poll() == []


@pytest.mark.parametrize("read", [True, False])
def test_the_chart_gives_the_right_and_says_so(read: bool) -> None:
    documents = rendered() if read else rendered("kueue.read=false")
    rules = [rule for d in documents if d["kind"] == "ClusterRole" for rule in d["rules"]]
    of_kueue = [rule for rule in rules if "kueue.x-k8s.io" in rule["apiGroups"][0]]
    rights = [
        {"apiGroups": ["kueue.x-k8s.io"], "resources": ["workloads"], "verbs": ["list"]},
        {
            "apiGroups": ["visibility.kueue.x-k8s.io"],
            "resources": ["localqueues/pendingworkloads"],
            "verbs": ["get"],
        },
    ]
    assert of_kueue == (rights if read else [])
    (container,) = one(documents, "Deployment", NAME)["spec"]["template"]["spec"]["containers"]
    settings = from_env({e["name"]: e["value"] for e in container["env"] if "value" in e})
    assert settings.read_kueue is read


L40S = Plan(gpus=1, accelerator="nvidia-l40s-48gb")
PRODUCT = "nvidia.com/gpu.product"


@pytest.mark.parametrize(
    ("labels", "plan"),
    [
        ({}, L40S),
        ({"zone": "a"}, L40S),
        ({PRODUCT: "NVIDIA-L40S"}, L40S),
        ({PRODUCT: "Custom-9"}, Plan(gpus=1, accelerator="Custom-9", gpu_resource="nvidia.com/gpu")),
        ({PRODUCT: "Tesla-T4"}, Plan(gpus=0, accelerator="cpu")),
    ],
)
def test_a_flavor_of_the_kind_that_the_plan_is_for_needs_no_word(labels: dict[str, str], plan: Plan) -> None:
    assert other_kind(labels, plan) == ""


def test_a_flavor_of_another_kind_is_told_with_what_to_set() -> None:
    said = other_kind({PRODUCT: "Tesla-T4", "zone": "a"}, L40S)
    assert "nodes with nvidia.com/gpu.product=Tesla-T4, but the plan is made for nvidia-l40s-48gb" in said
    assert "Set resources.accelerator.name to nvidia-t4-16gb" in said


def test_a_flavor_of_a_kind_that_no_catalogue_has_is_told_too() -> None:
    assert "Set resources.accelerator.memory to its memory" in other_kind({PRODUCT: "Custom-9"}, L40S)
