"""GPU jobs on a real scheduler: the GPU in the plan, the pod's node, and the message if no node fits.

``pytest -s`` prints the messages of the conditions.
"""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.node_support import GPU, PRODUCT, fake_node, gpus
from tests.integration.operator_support import RFTJOBS, Api, Object, Operator, Run
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster
Submit = Callable[..., Run]

H100, L40S = "NVIDIA-H100-80GB-HBM3", "NVIDIA-L40S"
WITHIN_SECONDS = 30.0
SMALL = {"cpu": "100m", "memory": "64Mi"}
"""CPU and memory requests so small that only the GPUs decide on which node a pod runs."""
ANYWHERE: dict[str, Any] = {"storage": {"ephemeral": {}}, "resources": SMALL}
LARGE: dict[str, Any] = {
    **ANYWHERE,
    "model": {"name": "Qwen/Qwen2.5-14B"},
    "training": {"maxContextLength": 32768, "loraRank": 32},
    "sampling": {"numRollouts": 8},
}
"""A job whose plan has four GPUs of 80 GB."""


@pytest.fixture
def offering(api: Api, operator: Operator) -> Iterator[Callable[..., None]]:
    """Return a function that advertises GPUs on a node, and restarts the operator so that it sees them."""
    entered: list[Any] = []

    def offer(count: int, product: str | None = None) -> None:
        entered.append(gpus(api, count, product))
        entered[-1].__enter__()
        operator.stop()
        operator.start()

    yield offer
    for manager in reversed(entered):
        manager.__exit__(None, None, None)


def events(api: Api, run: Run) -> list[Object]:
    selector = f"fieldSelector=involvedObject.uid%3D{run.uid}"
    found: list[Object] = api.call("GET", "api/v1/namespaces/{}/events?" + selector).get("items") or []
    return found


def unschedulable(run: Run) -> Object:
    """Wait until the pod is reported as unschedulable. Print how long it took. Return the condition Ready."""
    started = time.monotonic()
    ready = wait_until(
        "the status says why no node fits the pod",
        lambda: found if (found := run.condition("Ready")).get("reason") == "Unschedulable" else None,
        WITHIN_SECONDS,
    )
    print(f"\nafter {time.monotonic() - started:.1f} s: {ready['message']}")
    return ready


def scheduled(run: Run) -> Object:
    """Wait until the pod has a node. Return the pod's spec."""
    pod = wait_until("the pod is scheduled", lambda: _placed(run), WITHIN_SECONDS)
    return dict(pod["spec"])


def _placed(run: Run) -> Object | None:
    return next((pod for pod in run.pods() if pod["spec"].get("nodeName")), None)


def test_a_job_that_needs_one_gpu_is_scheduled_by_its_extended_resource(
    submit: Submit, offering: Callable[..., None]
) -> None:
    offering(2)
    run = submit(**ANYWHERE)
    spec = scheduled(run)
    assert spec["containers"][0]["resources"]["limits"][GPU] == "1"
    plan = run.status["plan"]
    assert (plan["gpus"], plan["accelerator"]) == (1, "nvidia-h100-80gb")
    assert plan["notes"][0] == (
        "planned for nvidia-h100-80gb: no node that the job may use has a label with the kind of its GPUs"
    )


def test_a_job_that_needs_four_gpus_names_a_change_that_fits_on_two(
    submit: Submit, offering: Callable[..., None], api: Api
) -> None:
    offering(2, H100)
    run = submit(**LARGE)
    ready = unschedulable(run)
    assert run.status["plan"]["gpus"] == 4
    assert ready["status"] == "False"
    assert "The pod needs 4 nvidia.com/gpu, 0.1 CPU" in ready["message"]
    assert "has 2 nvidia.com/gpu" in ready["message"]
    assert "Insufficient nvidia.com/gpu" in ready["message"], "the scheduler's own message is included"
    wait_until("an Event has the same message", lambda: _warning(api, run, "Unschedulable"))
    named = re.search(r"The pod fits with spec\.training\.maxContextLength: (\d+)", ready["message"])
    assert named is not None, ready["message"]
    api.delete(RFTJOBS, run.name)
    lowered = submit(**LARGE | {"training": {"maxContextLength": int(named[1]), "loraRank": 32}})
    limits = scheduled(lowered)["containers"][0]["resources"]["limits"]
    print(f"with maxContextLength {named[1]} the pod requests {limits[GPU]} GPUs and is scheduled")
    assert int(limits[GPU]) <= 2


def _warning(api: Api, run: Run, reason: str) -> Object | None:
    found = [event for event in events(api, run) if event["reason"] == reason]
    return found[0] if found and found[0]["type"] == "Warning" else None


def test_a_gpu_number_in_the_spec_is_used_with_a_warning_and_can_be_changed(
    submit: Submit, offering: Callable[..., None], api: Api
) -> None:
    offering(2, H100)
    # A suspended run needs a folder that remains when its pod is deleted.
    kept = {"claimTemplate": {"size": "1Gi", "retain": False}}
    run = submit(storage=kept, resources={**SMALL, "gpus": 4})
    message = unschedulable(run)["message"]
    assert "The pod needs 4 nvidia.com/gpu" in message
    assert "The pod fits with spec.resources.gpus: 1" in message
    warned = wait_until("a warning names the override", lambda: _warning(api, run, "PlanOverridden"))
    print(warned["message"])
    assert warned["message"] == "spec.resources.gpus: 4 is used; the plan for nvidia-h100-80gb needs 1"
    assert len([e for e in events(api, run) if e["reason"] == "PlanOverridden"]) == 1
    api.patch(RFTJOBS, run.name, {"spec": {"suspend": True}})
    run.wait_for_phase("Suspended")
    api.patch(RFTJOBS, run.name, {"spec": {"resources": {"gpus": 1}}})
    api.patch(RFTJOBS, run.name, {"spec": {"suspend": False}})
    assert scheduled(run)["containers"][0]["resources"]["limits"][GPU] == "1"


def test_too_many_cpus_are_reported_with_those_of_the_largest_node(submit: Submit) -> None:
    run = submit(resources={"accelerator": {"name": "cpu"}, "cpu": "64"})
    message = unschedulable(run)["message"]
    assert "The pod needs 64 CPU" in message
    assert re.search(r"The pod fits with spec\.resources\.cpu: \d+m? ", message), message


def test_the_accelerator_is_chosen_by_the_nodes_label(submit: Submit, offering: Callable[..., None]) -> None:
    offering(2, L40S)
    run = submit(**ANYWHERE)
    spec = scheduled(run)
    plan = run.status["plan"]
    print(f"\n{plan['notes'][0]}; {plan['gpus']} of {plan['gpuMemory']}")
    assert plan["accelerator"] == "nvidia-l40s-48gb"
    assert PRODUCT not in spec.get("nodeSelector", {}), (
        "all GPU nodes are of one kind, so no selector is needed"
    )


def test_with_several_kinds_of_gpu_the_pod_selects_the_planned_one(
    submit: Submit, offering: Callable[..., None], api: Api
) -> None:
    with fake_node(api, "rft-fake-h200", "NVIDIA-H200", 8):
        offering(2, L40S)
        run = submit(**ANYWHERE)
        spec = scheduled(run)
        assert run.status["plan"]["accelerator"] == "nvidia-l40s-48gb"
        assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
        required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        expressions = [one for term in required["nodeSelectorTerms"] for one in term["matchExpressions"]]
        assert {"key": PRODUCT, "operator": "In", "values": [L40S]} in expressions
        assert spec["nodeName"] != "rft-fake-h200"


def test_a_job_without_a_usable_node_is_reported(submit: Submit) -> None:
    run = submit()
    assert "no ready node that has the labels of the pod's node selector" in unschedulable(run)["message"]
