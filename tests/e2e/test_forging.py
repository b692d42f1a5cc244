"""A program that a grader starts in a pod cannot forge a score. The status counts forged replies."""

from typing import Any

import pytest

from rft_graders.confinement import landlock_version
from tests.chaos.jobs import job, prerequisites
from tests.e2e.jobs_support import ended
from tests.kubectl import Kubectl
from tests.trainer.forging_support import FORGER, HONEST, LIMITS, MEMORY, OTHERS, PRELUDE, SIGNALS
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NAME = "forging"
# The test cluster's node runs on this machine's kernel, so ``landlock_version`` is also valid for its pods.
ATTACKS = [
    *(*MEMORY.values(), *LIMITS.values(), *OTHERS.values()),
    *(SIGNALS.values() if landlock_version() >= 6 else ()),
]

ATTACKED = f"""
import subprocess, sys

PROGRAMS = {[program for attack in ATTACKS for program in (PRELUDE + attack, HONEST)]!r}
calls = 0

def grade(completion, row):
    global calls
    calls += 1
    program = PROGRAMS[calls % len(PROGRAMS)]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if "REACHED" in done.stdout:
        print(done.stdout[:400])
        return 1.0
    if "TRIED" not in done.stdout:
        raise ValueError(done.stdout[-200:] + done.stderr[-200:])
    return 0.0
"""
"""The source of a grader that runs one program in each call: in turn an attack, and ``HONEST``.

If an attack succeeds, its own program or the next ``HONEST`` prints "REACHED", and the score is 1.
Otherwise the score is 0.
"""


def python(name: str, source: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "timeoutSeconds": 60, "python": {"inline": source}, **settings}


def test_programs_in_the_grader_container_forge_no_score(kubectl: Kubectl) -> None:
    manifest = job(NAME, "transformers")
    manifest["spec"]["stop"] = {"maxSteps": 2}
    manifest["spec"]["graders"] = [
        python("attacked", ATTACKED, onError="fail"),
        python("other", "def grade(completion, row): return 0.5", onError="fail"),
        python("forger", FORGER, weight=0),
    ]
    kubectl.apply(*prerequisites(), manifest)
    found = wait_until("the job ends", lambda: ended(kubectl, NAME), 600)
    assert found["phase"] == "Succeeded", found["message"]
    for point in found["reward"]["history"]:
        assert (point["graders"]["attacked"], point["graders"]["other"]) == (0.0, 0.5), point
    usage = found["usage"]
    assert set(usage["graderErrors"]) == {"forger"}
    assert usage["forgedReplies"] == usage["graderErrors"]
