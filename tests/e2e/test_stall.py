"""A trainer that falls silent: its RFTJob says so, with the end of its log, until it goes on."""

from collections.abc import Iterator

import pytest

from tests.chaos.faults import stopped
from tests.chaos.jobs import job, prerequisites
from tests.e2e.conftest import install
from tests.kubectl import Kubectl, Object
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

NAME = "silent"
# Slow enough for the evaluation of the base model to be met: no step is made before it is over, and
# until then the setting decides. From the first step on five minutes of silence would be allowed.
GRADER = {
    "python": {"inline": "import time\n\ndef grade(completion, row):\n    time.sleep(2)\n    return 1.0\n"}
}


@pytest.fixture
def impatient(kubectl: Kubectl) -> Iterator[Kubectl]:
    """kubectl against an operator that allows ten seconds of silence before the first step."""
    install("--set", "ingest.noProgressSeconds=10")
    yield kubectl
    kubectl.run("delete", "rftjob", NAME, "--ignore-not-found", "--wait")
    install()


def condition(kubectl: Kubectl, kind: str) -> Object:
    status = kubectl.get("rftjob", NAME).get("status") or {}
    return next((c for c in status.get("conditions", []) if c["type"] == kind), {})


def test_a_silent_trainer_is_shown_with_the_last_lines_of_its_log(impatient: Kubectl) -> None:
    manifest = job(NAME, "transformers")
    manifest["spec"]["graders"] = [{"name": "slow", **GRADER}]
    impatient.apply(*prerequisites(), manifest)
    wait_until("it runs", lambda: condition(impatient, "Ready").get("status") == "True", 180)
    with stopped("trainer"):
        stalled = wait_until(
            "it is stalled",
            lambda: c if (c := condition(impatient, "Stalled"))["status"] == "True" else None,
            90,
        )
        assert stalled["reason"] == "NoProgress"
        assert "10 s are allowed" in stalled["message"]
        log = impatient.run("logs", "-l", f"rft.dev/job-name={NAME}", "-c", "trainer").stdout
        last = log.splitlines()[-1]
        assert last, "a trainer says what it does"
        assert last[:100] in stalled["message"], "a long line is cut"
    wait_until("it goes on", lambda: condition(impatient, "Stalled")["status"] == "False", 60)
