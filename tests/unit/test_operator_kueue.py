"""The status of a Kueue Workload tells why a child Job waits. The messages are copied from Kueue 0.17."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from rft_api.status import Plan
from rft_operator.cluster import ClusterError, NotFound, Unavailable
from rft_operator.kueue import BEYOND, Check, Workload, held, other_kind, rounded, workload
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


def reason_and_message(*conditions: Json, **status: Any) -> tuple[str, str]:
    found = held(workload(raw(*conditions, **status)), "team")
    return found.reason, found.message


def test_the_message_names_the_missing_quota_and_its_amount() -> None:
    assert reason_and_message(WAITS) == ("Queued", f"The child Job waits in LocalQueue team: {SHORT}.")


def test_a_missing_queue_has_the_reason_inadmissible() -> None:
    missing = condition("QuotaReserved", "False", "Inadmissible", "LocalQueue team doesn't exist")
    assert reason_and_message(missing) == (
        "Inadmissible",
        "The child Job waits in LocalQueue team: LocalQueue team doesn't exist.",
    )


def test_the_message_names_the_preemption_and_the_missing_quota() -> None:
    reason, message = reason_and_message(WAITS, *PREEMPTED)
    assert reason == "Preempted"
    assert message == (
        f"The child Job waits in LocalQueue team: {SHORT}. "
        f"Kueue stopped the child Job at 2026-11-28T18:00:00Z (Preempted): {BY}."
    )


def test_an_earlier_eviction_is_not_in_the_message() -> None:
    over = condition("Evicted", "False", "QuotaReserved", "Previously: " + BY)
    assert reason_and_message(WAITS, over)[0] == "Queued"
    assert "stopped" not in reason_and_message(WAITS, over)[1]


def test_the_message_of_a_deactivated_workload_says_how_to_activate_it() -> None:
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
    said = reason_and_message(condition("QuotaReserved", "True", "QuotaReserved"), admissionChecks=checks)
    assert said == (reason, f"AdmissionCheck capacity says {state}: no nodes yet.")


def test_missing_quota_is_named_before_a_pending_admission_check() -> None:
    assert SHORT in reason_and_message(WAITS, admissionChecks=[{"name": "capacity", "state": "Pending"}])[1]


def test_the_message_says_when_kueue_considers_the_workload_again() -> None:
    later = reason_and_message(WAITS, requeueState={"count": 2, "requeueAt": "2026-11-28T18:05:00Z"})
    assert "until 2026-11-28T18:05:00Z" in later[1]


def test_without_a_workload_the_message_names_the_queue_or_its_absence() -> None:
    assert held(None, "team").message == "The child Job is suspended until LocalQueue team admits it."
    assert "no label of the Job names a queue" in held(None, "").message


def test_a_workload_without_conditions_is_reported_as_waiting() -> None:
    bare: Json = {"metadata": {"name": "w"}}
    assert workload(bare) == Workload("w")
    assert held(workload(bare), "team").message == "The child Job waits in LocalQueue team."
    assert workload(raw(admissionChecks=[{"name": "a"}])).checks == (Check("a", "Pending"),)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (0, ""),
        (1, "number 1"),
        (10, "number 10"),
        (11, "among the first 20"),
        (1000, "among the first 1000"),
        (1001, "after the first 1000"),
    ],
)
def test_a_position_beyond_ten_is_rounded_so_that_it_changes_rarely(place: int, said: str) -> None:
    message = held(replace(workload(raw(WAITS)), place=rounded(place)), "team").message
    assert (f"{said} in this LocalQueue." in message) == bool(said)


def test_positions_are_read_once_per_queue() -> None:
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


def test_a_workload_behind_all_that_the_answer_lists_has_a_position_too() -> None:
    def places(_namespace: str, _queue: str) -> list[Json]:
        return [{"metadata": {"name": f"w-{i}"}, "positionInLocalQueue": i} for i in range(1000)]

    workloads = Workloads(lambda _: [raw(WAITS)], places)
    workloads.of(KEY, "job-1")
    workloads.poll()
    found = workloads.of(KEY, "job-1")
    assert found is not None
    assert found.place == BEYOND


def test_each_namespace_s_error_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def read(namespace: str) -> list[Json]:
        raise ClusterError(403, f"forbidden in {namespace}")

    workloads = Workloads(read)
    workloads.of(("one", "a"), "job-1")
    workloads.of(("two", "b"), "job-2")
    for _ in range(3):
        workloads.poll()
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["one", "two"]


def test_a_kueue_without_the_visibility_api_is_no_error() -> None:
    def places(namespace: str, queue: str) -> list[Json]:
        raise NotFound(404, "no such group")

    workloads = Workloads(lambda _: [raw(WAITS)], places)
    workloads.of(KEY, "job-1")
    assert workloads.poll() == [KEY]


class Server:
    """A fake API server that lists Workloads, or raises the error that a test sets."""

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


def test_a_poll_returns_only_rftjobs_with_changed_workloads() -> None:
    server = Server()
    assert server.workloads.of(KEY, "job-1") is None
    assert server.workloads.of(OTHER, "job-2") is None
    assert server.workloads.poll() == [KEY]
    assert server.workloads.poll() == []
    assert server.reads == ["team", "team"], "each poll lists all Workloads of a namespace with one request"
    found = server.workloads.of(KEY, "job-1")
    assert found is not None
    assert found.pending_message == SHORT
    server.items = [raw(condition("QuotaReserved", "True"))]
    assert server.workloads.poll() == [KEY]


def test_a_job_that_is_not_suspended_any_more_is_not_polled() -> None:
    server = Server()
    server.workloads.of(KEY, "job-1")
    server.workloads.poll()
    assert server.workloads.of(KEY, None) is None
    assert server.workloads.poll() == []
    assert len(server.reads) == 1
    assert server.workloads.of(KEY, "job-1") is None, "the cached Workload is dropped when the Job runs"


def test_a_cluster_without_kueue_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    server.error = NotFound(404, "no such group")
    server.workloads.of(KEY, "job-1")
    with caplog.at_level(logging.INFO):
        assert server.workloads.poll() == []
    assert caplog.records == []
    server.error = None
    assert server.workloads.poll() == [KEY], "after Kueue is installed, Workloads are found"


def test_a_refused_poll_is_logged_once_and_keeps_the_cached_workloads(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server()
    server.workloads.of(KEY, "job-1")
    server.workloads.poll()
    server.error = ClusterError(403, "workloads is forbidden")
    assert server.workloads.poll() == []
    assert server.workloads.poll() == []
    assert server.workloads.of(KEY, "job-1") is not None
    (record,) = caplog.records
    assert "workloads is forbidden" in record.message


def test_a_truncated_list_changes_nothing() -> None:
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


def test_a_disabled_cache_reads_nothing() -> None:
    workloads = Workloads(None)
    assert workloads.of(KEY, "job-1") is None
    assert workloads.poll() == []


@pytest.mark.parametrize("read", [True, False])
def test_the_chart_grants_the_right_and_sets_the_operators_setting(read: bool) -> None:
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
def test_a_flavor_with_the_planned_gpu_gives_no_message(labels: dict[str, str], plan: Plan) -> None:
    assert other_kind(labels, plan) == ""


def test_a_flavor_with_another_gpu_is_reported_with_the_field_to_set() -> None:
    said = other_kind({PRODUCT: "Tesla-T4", "zone": "a"}, L40S)
    assert "nodes with nvidia.com/gpu.product=Tesla-T4, a label of the flavor" in said
    assert "the plan is made for nvidia-l40s-48gb" in said
    assert "Set resources.accelerator.name to nvidia-t4-16gb" in said


def test_a_flavor_with_an_unknown_gpu_is_reported_too() -> None:
    said = "Set resources.accelerator.memory to the memory of these GPUs"
    assert said in other_kind({PRODUCT: "Custom-9"}, L40S)
