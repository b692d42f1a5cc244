"""A job that needs a GPU is scheduled, runs and succeeds. Its node advertises GPUs that do not exist.

So the trainer computes on the CPU.
"""

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import cluster, variant
from tests.e2e.jobs_support import condition, ended, pods, status
from tests.kubectl import Kubectl, Object
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

MINUTE = 60.0
PRODUCT = "nvidia.com/gpu.product"


@pytest.fixture(scope="module", autouse=True)
def two_gpus(kubectl: Kubectl) -> Iterator[None]:
    """Make every node advertise two L40S GPUs during the tests.

    The nodes get the label for the kind of GPU before they get the GPUs. The operator caches the nodes, and
    must never cache a node with GPUs but without this label.
    """
    kubectl.run("label", "nodes", "--all", f"{PRODUCT}=NVIDIA-L40S", "--overwrite")
    cluster("set-gpus", "2")
    yield
    kubectl.run("label", "nodes", "--all", f"{PRODUCT}-")
    cluster("set-gpus", "0")


def test_a_job_that_needs_one_gpu_runs_on_a_node_with_simulated_gpus(
    kubectl: Kubectl, example: list[Object]
) -> None:
    name = "on-a-gpu"
    objects = variant(
        example, name, stop={"maxSteps": 1}, sampling={"engine": "transformers"}, evaluation={"fraction": 0}
    )
    job = next(o for o in objects if o["kind"] == "RFTJob")
    # Neither a number of GPUs nor an accelerator is set, so the plan chooses one GPU. For one GPU the plan
    # requests four CPUs, which may be more than the node has. So the job sets the CPUs itself.
    job["spec"]["resources"] = {"cpu": "1", "memory": "8Gi"}
    job["spec"]["template"]["env"].append({"name": "RFT_DEVICE", "value": "cpu"})
    kubectl.apply(*objects)
    found = wait_until("the job ends", lambda: ended(kubectl, name), 12 * MINUTE)
    assert found["phase"] == "Succeeded", found
    # The operator finds the accelerator in the label of the nodes. The chart gives the right to list nodes.
    plan = found["plan"]
    assert (plan["gpus"], plan["device"], plan["accelerator"]) == (1, "cuda", "nvidia-l40s-48gb")
    assert condition(found, "Complete")["reason"] == "MaxStepsReached"
    (pod,) = pods(kubectl, name)
    trainer = next(c for c in pod["spec"]["containers"] if c["name"] == "trainer")
    assert trainer["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["spec"]["nodeName"]
    assert found["progress"]["step"] == 1


def test_a_gpu_that_torch_does_not_see_is_reported_with_the_fix(
    kubectl: Kubectl, example: list[Object]
) -> None:
    name = "no-such-gpu"
    objects = variant(example, name, sampling={"engine": "transformers"})
    job = next(o for o in objects if o["kind"] == "RFTJob")
    job["spec"]["resources"] = {"cpu": "1", "memory": "8Gi"}
    kubectl.apply(*objects)
    wait_until("the job ends", lambda: ended(kubectl, name), 5 * MINUTE)
    failed = condition(status(kubectl, name), "Failed")
    print(failed["message"])
    assert failed["reason"] == "ConfigurationError"
    assert "torch finds no GPU" in failed["message"]
    assert "RFT_DEVICE=cpu" in failed["message"]
