"""Two RFTJobs with an environment: one is suspended and resumed, and succeeds. The other is cancelled."""

import pytest

from tests.chaos.jobs import job, prerequisites
from tests.e2e.jobs_support import condition, ended, pods, status
from tests.kubectl import Kubectl, Object
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

STEPS = 6
GAME = """
class Environment:
    def reset(self, answer, **row):
        self.answer, self.tries = str(answer), 0
        return "+"

    def reply(self, text):
        self.tries += 1
        return None if self.tries == 3 else "b"

    def get_reward(self):
        return self.tries / 3
"""


def played(name: str, steps: int) -> Object:
    """Return an RFTJob whose rollouts have three turns."""
    made = job(name, "transformers")
    made["spec"] |= {
        "graders": [],
        "environment": {"python": {"inline": GAME}, "maxTurns": 4, "concurrency": 4},
        "stop": {"maxSteps": steps},
        "evaluation": {"fraction": 0},
    }
    made["spec"]["sampling"]["numRollouts"] = 4
    return made


def step(kubectl: Kubectl, name: str) -> int:
    return int(status(kubectl, name).get("progress", {}).get("step", 0))


def set_field(kubectl: Kubectl, name: str, field: str, value: str) -> None:
    kubectl.run("patch", "rftjob", name, "--type=merge", "-p", f'{{"spec": {{"{field}": {value}}}}}')


def test_a_job_with_an_environment_is_suspended_resumed_and_succeeds(kubectl: Kubectl) -> None:
    name, cancelled = "played", "played-cancelled"
    kubectl.apply(*prerequisites(), played(name, STEPS), played(cancelled, 1000))
    wait_until("a step is completed", lambda: step(kubectl, name) >= 1, 240)
    set_field(kubectl, name, "suspend", "true")
    wait_until("the pod is gone", lambda: not pods(kubectl, name), 120)
    paused = wait_until(
        "the job is suspended",
        lambda: s if (s := status(kubectl, name))["phase"] == "Suspended" else None,
        60,
    )
    reached = paused["progress"]["step"]
    assert reached < STEPS, "the job must be suspended before its last step"
    set_field(kubectl, name, "suspend", "false")

    wait_until("the other job completes a step", lambda: step(kubectl, cancelled) >= 1, 240)
    set_field(kubectl, cancelled, "cancel", "true")

    found = wait_until("the job ends", lambda: ended(kubectl, name), 240)
    assert found["phase"] == "Succeeded", found
    assert condition(found, "Complete")["reason"] == "MaxStepsReached"
    assert found["progress"]["resumedFromStep"] >= reached
    assert [point["step"] for point in found["reward"]["history"]] == list(range(1, STEPS + 1))
    assert found["reward"]["graders"].keys() == {"environment"}
    assert found["metrics"]["turns"] == 3
    assert found["metrics"]["environmentErrors"] == 0

    stopped = wait_until("the other job ends", lambda: ended(kubectl, cancelled), 120)
    assert stopped["phase"] == "Cancelled", stopped
    assert stopped["reward"]["graders"].keys() == {"environment"}
