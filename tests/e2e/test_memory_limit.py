"""Runs in pods with a memory limit.

If the limit equals the plan's least memory, a run with rows of the maximum length succeeds. If the limit is
lower, the run fails. Each test runs with float32 and with bfloat16. The job sets this dtype, so it does not
depend on the node's processor.
"""

import json
from typing import Any

import pytest

from rft_api.parameters import Dtype
from rft_api.validation import parse
from rft_planner.container import FORCE_ANNOTATION
from rft_planner.plan import plan
from rft_planner.precision import WIDTHS
from rft_planner.sizes import mib, quantity
from tests.e2e.conftest import variant
from tests.e2e.jobs_support import condition, ended, pods, status
from tests.kubectl import Kubectl, Object
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

MINUTE = 60.0
CONTEXT, MAX_TOKENS = 192, 128
"""The maximum numbers of tokens of a sequence, and of a completion.

The chat template and the prompt fill the rest of the sequence.
"""


def job(
    example: list[Object],
    name: str,
    dtype: Dtype,
    memory: str | None = None,
    *,
    steps: int = 1,
    force: bool = False,
) -> list[Object]:
    """Return the objects of a job whose sequences are as long as the context allows.

    - ``dtype`` is the dtype in which the run computes.
    - ``memory`` is the memory in the job's resources. None: the resources name no memory.
    - ``steps`` is the number of steps. The evaluation after the last step samples with the new adapter.
    - ``force`` adds the annotation ``FORCE_ANNOTATION``. The run then starts even if its memory is too small.
    """
    objects = variant(
        example, name,
        sampling={"maxTokens": MAX_TOKENS, "numRollouts": 2, "temperature": 1.0},
        training={"batchSizeTokens": 1024, "maxContextLength": CONTEXT, "klBeta": 0.001, "cpuDtype": dtype},
        stop={"maxSteps": steps}, retry={"limit": 0}, preflight="off",
        resources={"gpus": 0} | ({"memory": memory} if memory is not None else {}),
        evaluation={"dataset": {"configMap": {"name": "long-rows", "key": "held-out.jsonl"}}},
        dataset={"configMap": {"name": "long-rows", "key": "rows.jsonl"}},
    )  # fmt: skip
    made = next(o for o in objects if o["kind"] == "RFTJob")
    made["spec"]["evaluation"].pop("fraction", None)
    if force:
        made["metadata"]["annotations"] = {FORCE_ANNOTATION: "true"}
    data = next(o for o in objects if o["kind"] == "ConfigMap")
    data["metadata"]["name"] = "long-rows"
    data["data"] = {"rows.jsonl": rows(48), "held-out.jsonl": rows(1, first=100)}
    return objects


def rows(count: int, first: int = 0) -> str:
    """Return ``count`` rows as JSON lines. Their answers are the numbers from ``first`` on.

    The prompts ask for long texts, so that the completions reach the maximum number of tokens.
    """
    asked = "Write a very long story with many chapters, and never end it. Begin with chapter"
    made: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": f"{asked} {number}."}], "answer": number}
        for number in range(first, first + count)
    ]
    return "\n".join(json.dumps(row) for row in made)


def least(example: list[Object], dtype: Dtype) -> float:
    """Return the least memory of the plan in bytes. ``rft plan`` shows the same number."""
    spec = parse(next(o for o in job(example, "asked", dtype) if o["kind"] == "RFTJob")).spec
    return quantity(plan(spec, "").least_memory or "")


@pytest.mark.long
@pytest.mark.parametrize("dtype", WIDTHS)
def test_the_minimum_memory_is_enough_for_the_longest_rows(
    kubectl: Kubectl, example: list[Object], dtype: Dtype
) -> None:
    name = f"least-{dtype}"
    kubectl.apply(*job(example, name, dtype, mib(least(example, dtype))))
    found = wait_until("the job ends", lambda: ended(kubectl, name), 10 * MINUTE)
    assert found["phase"] == "Succeeded", found["message"]
    assert (found["plan"]["microBatchTokens"], found["plan"]["dtype"]) == (CONTEXT, dtype)
    (pod,) = pods(kubectl, name)
    trainer = next(c for c in pod["spec"]["containers"] if c["name"] == "trainer")
    assert quantity(trainer["resources"]["limits"]["memory"]) == pytest.approx(
        least(example, dtype), rel=0.01
    )
    assert found["metrics"]["truncatedFraction"] > 0.8


TOO_LITTLE: dict[Dtype, float] = {"float32": 0.75, "bfloat16": 0.6}
"""For each dtype, a fraction of the plan's least memory that is too small: a run with this limit is killed.

In bfloat16 a run with three quarters of the least memory is not killed, but slower. Its weights are mapped
from the model's file. The kernel drops mapped pages before it kills a process, and reads them again when the
process needs them.
"""


@pytest.mark.parametrize("dtype", WIDTHS)
def test_three_quarters_of_the_minimum_memory_are_refused_and_no_pod_is_created(
    kubectl: Kubectl, example: list[Object], dtype: Dtype
) -> None:
    name = f"too-little-{dtype}"
    kubectl.apply(*job(example, name, dtype, mib(0.75 * least(example, dtype))))
    found = wait_until("the job ends", lambda: ended(kubectl, name), MINUTE)
    assert found["phase"] == "Invalid"
    planned = condition(found, "Planned")
    assert (planned["status"], planned["reason"]) == ("False", "DoesNotFit")
    assert "training.maxContextLength" in planned["message"]
    assert pods(kubectl, name) == []
    assert "jobName" not in found


@pytest.mark.long
@pytest.mark.parametrize("dtype", WIDTHS)
def test_a_forced_run_with_too_little_memory_fails_with_out_of_memory(
    kubectl: Kubectl, example: list[Object], dtype: Dtype
) -> None:
    name = f"forced-{dtype}"
    memory = mib(TOO_LITTLE[dtype] * least(example, dtype))
    kubectl.apply(*job(example, name, dtype, memory, steps=2, force=True))
    found = wait_until("the job ends", lambda: ended(kubectl, name), 10 * MINUTE)
    assert found["plan"]["forced"] is True
    failed = condition(found, "Failed")
    assert (failed["status"], failed["reason"]) == ("True", "OutOfMemory"), failed
    assert "spec.resources.memory" in failed["message"]
    assert status(kubectl, name)["phase"] == "Failed"
