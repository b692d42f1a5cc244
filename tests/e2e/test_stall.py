"""A job is stalled while its trainer sends no reports.

The status of a stalled job has the end of the trainer's log. When the trainer reports again, the job is no
longer stalled.
"""

from collections.abc import Iterator

import pytest

from tests.chaos.faults import stopped
from tests.chaos.jobs import job, prerequisites
from tests.e2e.conftest import install
from tests.kubectl import Kubectl, Object
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

NAME = "silent"
# The grader is slow, so that the evaluation of the base model is still running when the trainer is stopped.
# Before the first step the operator's setting is the limit. After the first step
# five minutes would be allowed.
GRADER = {
    "python": {"inline": "import time\n\ndef grade(completion, row):\n    time.sleep(2)\n    return 1.0\n"}
}


@pytest.fixture
def short_limit(kubectl: Kubectl) -> Iterator[Kubectl]:
    """kubectl in a cluster whose operator allows ten seconds without a report before the first step."""
    install("--set", "ingest.noProgressSeconds=10")
    yield kubectl
    kubectl.run("delete", "rftjob", NAME, "--ignore-not-found", "--wait")
    install()


def condition(kubectl: Kubectl, kind: str) -> Object:
    status = kubectl.get("rftjob", NAME).get("status") or {}
    return next((c for c in status.get("conditions", []) if c["type"] == kind), {})


def test_a_stalled_trainer_is_reported_with_the_last_lines_of_its_log(short_limit: Kubectl) -> None:
    manifest = job(NAME, "transformers")
    manifest["spec"]["graders"] = [{"name": "slow", **GRADER}]
    short_limit.apply(*prerequisites(), manifest)
    wait_until("it runs", lambda: condition(short_limit, "Ready").get("status") == "True", 180)
    with stopped("trainer"):
        stalled = wait_until(
            "the run is stalled",
            lambda: c if (c := condition(short_limit, "Stalled"))["status"] == "True" else None,
            90,
        )
        assert stalled["reason"] == "NoProgress"
        assert "longer than the allowed 10 s" in stalled["message"]
        log = short_limit.run("logs", "-l", f"rft.dev/job-name={NAME}", "-c", "trainer").stdout
        last = log.splitlines()[-1]
        assert last, "the last line of the trainer's log must not be empty"
        assert last[:100] in stalled["message"], "the condition must have the beginning of the last line"
    wait_until(
        "the run is no longer stalled", lambda: condition(short_limit, "Stalled")["status"] == "False", 60
    )
