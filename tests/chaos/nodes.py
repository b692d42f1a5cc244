"""``python -m tests.chaos.nodes``: stops nodes of a kind cluster on which jobs run, and prints how the jobs
ended.

All jobs run in deterministic mode. The results of each job must equal those of an undisturbed job, byte for
byte. A trainer that was replaced must not write anything more into the job's folder.
"""

import argparse
import json
import random
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rft_operator.leadership import LEADER_LABEL
from rft_run.events import EndEvent, parse
from rft_run.exit_codes import ExitCode
from tests.chaos.faults import pids
from tests.chaos.jobs import STEPS, job
from tests.chaos.place import NAMESPACE, OPERATOR_NAMESPACE, clear, cluster, namespace
from tests.chaos.rounds import ended
from tests.cluster.layout import default_layout
from tests.cluster.provider import choose_provider
from tests.cluster.shell import ClusterError
from tests.kubectl import Kubectl, Object
from tests.resume.runs import left
from tests.waiting import wait_until

TOLERATED_SECONDS = 5
"""Seconds for which the jobs' pods tolerate a lost node, after Kubernetes has marked it as lost."""
LOST_WITHIN = 150.0
"""The status must report a lost node within this many seconds. Kubernetes itself notices the loss after 40 to
50 seconds."""
FENCED_WITHIN = 60.0
"""A trainer that was replaced while its node was paused must end within this many seconds after the node
continues."""
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


@dataclass
class Seen:
    """The observations of one job during one fault."""

    fault: str
    step: int
    """The step after which the fault begins."""
    seconds: float = 0.0
    """Seconds from the beginning of the fault to the job's end."""
    said: list[tuple[float, str, str]] = field(default_factory=list)
    """Each change of the status message: seconds since the fault began, reason of Ready, message."""
    wrong: list[str] = field(default_factory=list)
    stale: str = ""
    """How the replaced trainer ended after its paused node continued. Empty if the fault pauses no node."""


class Stage:
    """The two worker nodes, and kubectl for the jobs and for the operator.

    The node ``near`` runs the operator. The node ``far`` runs the jobs, and is stopped or paused. ``volume``
    is the folder of the runs' volume on this machine.
    """

    def __init__(self, jobs: Kubectl, operator: Kubectl, volume: Path) -> None:
        self.jobs, self.operator, self.volume = jobs, operator, volume
        self.near, self.far = placed(operator)

    def status(self, name: str) -> Object:
        """Return the status of a job; {} if the job has no status yet."""
        return dict(self.jobs.get("rftjob", name).get("status") or {})

    def folder(self, name: str) -> Path:
        """Return the path, on this machine, of the folder of a job's run."""
        reported = self.status(name)["output"]["folder"]
        return self.volume / str(reported).removeprefix("/runs/")

    def attempt(self, name: str) -> int:
        """Read from ``attempt.json`` the number of the attempt that may write to the run's folder."""
        number = json.loads((self.folder(name) / "attempt.json").read_text())["number"]
        return int(number)

    def nodes(self, *words: str, check: bool = True) -> None:
        """Run a kubectl command for nodes. With ``check``, a failed command raises AssertionError."""
        self.operator.run(*words, check=check)

    def ready(self, node: str) -> bool:
        """Return whether a node is ready."""
        path = '{.status.conditions[?(@.type=="Ready")].status}'
        return self.operator.run("get", "node", node, "-o", f"jsonpath={path}", check=False).stdout == "True"


def placed(operator: Kubectl) -> tuple[str, str]:
    """Return the names of two worker nodes: the node of the leading operator, and another node.

    Raises:
        ClusterError: the cluster does not have two workers.
    """
    described = choose_provider(default_layout()).describe()
    workers = described.get("nodes_for_pods", "").split(",")
    if described["provider"] != "kind" or len(workers) < 2:
        raise ClusterError("this test needs a kind cluster with two workers: set RFT_TEST_CLUSTER=kind")
    acting = f"app.kubernetes.io/name=rft-operator,{LEADER_LABEL}=true"
    wanted = ("get", "pods", "-l", acting, "-o", "json")
    pods = json.loads(operator.run(*wanted).stdout)["items"]
    near = next(str(pod["spec"]["nodeName"]) for pod in pods if "deletionTimestamp" not in pod["metadata"])
    return near, next(worker for worker in workers if worker != near)


def docker(*words: str) -> str:
    """Run docker and return its standard output."""
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout


def apply_on(stage: Stage, names: Sequence[str], step: int) -> None:
    """Apply jobs so that they start on ``stage.far``. Wait until each has completed ``step`` steps."""
    stage.nodes("cordon", stage.near)
    try:
        for name in names:
            stage.jobs.apply(deterministic(name))
        for name in names:
            wait_until(f"{name} has completed step {step}", partial(has_made, stage, name, step), 300)
    finally:
        stage.nodes("uncordon", stage.near)


def has_made(stage: Stage, name: str, step: int) -> bool:
    """Return whether the job's status reports at least this many completed steps."""
    return int(stage.status(name).get("progress", {}).get("step", 0)) >= step


def deterministic(name: str) -> Object:
    """Return a job in deterministic mode. All such jobs have the same seed."""
    document = job(name, "transformers", TOLERATED_SECONDS)
    document["spec"]["training"] |= {"deterministic": True, "seed": 3}
    return document


# --- faults -------------------------------------------------------------------------------------------


def drained(stage: Stage, names: Sequence[str]) -> dict[str, str]:
    """Drain the jobs' node (``stage.far``), as an administrator does before maintenance."""
    stage.nodes("drain", stage.far, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=100s")
    return {}


def killed(stage: Stage, names: Sequence[str]) -> dict[str, str]:
    """Kill the jobs' node (``stage.far``), run a command that the status recommends, and restart the node.

    The status message of a job recommends two kubectl commands. One of them is chosen at random. The node is
    started when all jobs have a second attempt.
    """
    docker("kill", stage.far)
    run_command(stage, random.choice(commands_of(stage, names)))
    for name in names:
        wait_until(f"{name} has a second attempt", partial(moved, stage, name), 120)
    docker("start", stage.far)
    return {}


def back_late(stage: Stage, names: Sequence[str]) -> dict[str, str]:
    """Pause the jobs' node (``stage.far``) until its pods are replaced, then continue it.

    The new trainers run on the other node then. The kubelet of the paused node stays stopped until the old
    trainers have ended. So it cannot end them: they must end by themselves. Return how each one ended.
    """
    before = set(pids("trainer"))
    docker("exec", stage.far, "pkill", "-STOP", "-x", "kubelet")
    docker("pause", stage.far)
    try:
        run_command(stage, next(one for one in commands_of(stage, names) if OUT_OF_SERVICE in one))
        for name in names:
            wait_until(f"{name} has a second attempt", partial(moved, stage, name), 120)
    finally:
        docker("unpause", stage.far)
    began = time.monotonic()
    wait_until("the replaced trainers end", lambda: not before & set(pids("trainer")), FENCED_WITHIN)
    seconds = time.monotonic() - began
    ends = {name: f"{last_words(stage, name)}, {seconds:.0f} s after its node continued" for name in names}
    docker("exec", stage.far, "pkill", "-CONT", "-x", "kubelet")
    return ends


FAULTS: dict[str, Callable[[Stage, Sequence[str]], dict[str, str]]] = {
    "node drained": drained,
    "node killed": killed,
    "node cut off, back late": back_late,
}


def commands_of(stage: Stage, names: Sequence[str]) -> list[str]:
    """Wait until all jobs have the reason NodeLost. Return the commands that the first job's status names."""

    def lost(name: str) -> str:
        reason, message = reported(stage.status(name))
        return message if reason == "NodeLost" else ""

    messages = [wait_until(f"{name}: NodeLost", partial(lost, name), LOST_WITHIN) for name in names]
    return re.findall(r"kubectl (?:delete node|taint node) \S+(?: \S+=\S+:NoExecute)?", messages[0])


def run_command(stage: Stage, command: str) -> None:
    """Run a kubectl command exactly as it is in the status message."""
    stage.nodes(*shlex.split(command)[1:])


def moved(stage: Stage, name: str) -> bool:
    """Return whether the run's folder belongs to the second or a later attempt."""
    with suppress(OSError, ValueError):
        return stage.attempt(name) > 1
    return False


def last_words(stage: Stage, name: str) -> str:
    """Return the last line with the event ``end`` from the logs of a job's trainer on the node ``stage.far``.

    This is the node that the test stops or pauses. If there is no such line, return a text that says so.
    """
    logs = f"/var/log/pods/{NAMESPACE}_{name}-*/trainer/*.log"
    found = docker("exec", stage.far, "sh", "-c", f"cat {logs} || true")
    return last_end(found)


def last_end(log: str) -> str:
    """Return the last line with the event ``end`` from ``log``, the text of a log file that a kubelet wrote.

    If there is no such line, return a text that says so.
    """
    lines = [line.partition(" F ")[2] for line in log.splitlines()]
    ends = [line for line in lines if isinstance(parse(line), EndEvent)]
    return ends[-1][:200] if ends else "the log has no end event"


def repair_nodes(stage: Stage) -> None:
    """Start or continue the node ``stage.far``, and wait until it is ready.

    Then make both nodes schedulable again.
    """
    state = docker("inspect", "--format", "{{.State.Status}}", stage.far).strip()
    if state == "paused":
        docker("unpause", stage.far)
    elif state != "running":
        docker("start", stage.far)
    subprocess.run(["docker", "exec", stage.far, "pkill", "-CONT", "-x", "kubelet"], check=False)
    wait_until("the node is ready", lambda: stage.ready(stage.far), 180, poll=1.0)
    for node in (stage.near, stage.far):
        stage.nodes("uncordon", node)
        stage.nodes("taint", "node", node, f"{OUT_OF_SERVICE}-", check=False)


# --- rounds -------------------------------------------------------------------------------------------


@contextmanager
def listening(stage: Stage, outcomes: dict[str, Seen], began: float) -> Iterator[None]:
    """Watch the status of the jobs during the ``with`` block. Append each new status message to
    ``Seen.said``.

    ``outcomes``: a ``Seen`` for each job, by the job's name. ``began`` is the time at which the fault began,
    as ``time.monotonic`` returns it.
    """
    over = threading.Event()

    def look() -> None:
        while not over.wait(1.0):
            for name, outcome in outcomes.items():
                with suppress(AssertionError, KeyError):
                    reason, message = reported(stage.status(name))
                    if not outcome.said or without_numbers(message) != without_numbers(outcome.said[-1][2]):
                        outcome.said.append((time.monotonic() - began, reason, message))

    listener = threading.Thread(target=look, daemon=True)
    listener.start()
    try:
        yield
    finally:
        over.set()
        listener.join()


def reported(status: Object) -> tuple[str, str]:
    """Return the reason of the condition Ready, and the message of the status."""
    ready: Object = next((c for c in status["conditions"] if c["type"] == "Ready"), {})
    return str(ready.get("reason")), str(status["message"])


def without_numbers(message: str) -> str:
    """Replace the numbers in a message, so that messages of different steps are equal."""
    return re.sub(r"\d+", "N", message)


def play(stage: Stage, fault: str, names: Sequence[str], step: int, alone: dict[str, Any]) -> list[Seen]:
    """Start jobs on the node ``stage.far``, and inject the fault into this node after ``step`` steps.

    Check how the jobs end, and return the observations of each job.
    """
    apply_on(stage, names, step)
    outcomes = {name: Seen(fault, step) for name in names}
    began = time.monotonic()
    with listening(stage, outcomes, began):
        try:
            for name, end in FAULTS[fault](stage, names).items():
                outcomes[name].stale = end
            for name in names:
                wait_until(f"{name} ends", partial(ended, stage.jobs, name), 300, poll=1.0)
                outcomes[name].seconds = time.monotonic() - began
        finally:
            repair_nodes(stage)
    for name, outcome in outcomes.items():
        outcome.wrong = list(what_is_wrong(stage, name, outcome, alone))
    return list(outcomes.values())


def what_is_wrong(stage: Stage, name: str, outcome: Seen, alone: dict[str, Any]) -> Iterator[str]:
    """Yield each error in how a job ended.

    Examples: the results differ from ``alone``, the results of the undisturbed job, or a trainer wrote after
    it was replaced.
    """
    found = stage.status(name)
    if found.get("phase") != "Succeeded":
        yield f"ended as {found.get('phase')}: {found.get('message')}"
        return
    if found.get("failedPods", 0):
        yield f"{found['failedPods']} pods count as failed"
    folder = stage.folder(name)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    if [row["step"] for row in rows] != list(range(1, STEPS + 1)):
        yield f"metrics.jsonl has the steps {[row['step'] for row in rows]}"
    attempts = [row["attempt"] for row in rows]
    if attempts != sorted(attempts):
        yield f"an attempt wrote after it was replaced: the steps are of the attempts {attempts}"
    if partial_files := [str(path) for path in folder.rglob(".*.partial")]:
        yield f"files were not completely written: {partial_files}"
    one = left(folder)
    yield from (f"{part} differs from the undisturbed run" for part in alone if one[part] != alone[part])
    if outcome.stale and f'"exitCode": {int(ExitCode.FENCED)}' not in outcome.stale:
        yield f"the replaced trainer did not end with exit code {int(ExitCode.FENCED)}: {outcome.stale}"


def undisturbed(stage: Stage, name: str) -> dict[str, Any]:
    """Run a job without any fault. Return the parts of its results that are compared with other jobs."""
    stage.jobs.apply(deterministic(name))
    found = wait_until("the undisturbed job ends", partial(ended, stage.jobs, name), 300, poll=1.0)
    assert found["phase"] == "Succeeded", found
    return left(stage.folder(name))


def table(seen: Sequence[Seen]) -> Iterator[str]:
    """Yield the lines of two tables: how the jobs ended, and how their status messages changed."""
    yield "| fault | jobs | right results | after step | seconds from the fault to the job's end |"
    yield "|---|--:|--:|---|---|"
    for fault in FAULTS:
        of = [one for one in seen if one.fault == fault]
        if of:
            steps, seconds = [one.step for one in of], [one.seconds for one in of]
            right = sum(not one.wrong for one in of)
            yield (
                f"| {fault} | {len(of)} | {right} | {min(steps)} to {max(steps)} "
                f"| {min(seconds):.0f} to {max(seconds):.0f} |"
            )
    yield ""
    yield "| fault | seconds since the fault began | reason of Ready | status message |"
    yield "|---|--:|---|---|"
    for fault in FAULTS:
        first = next((one for one in seen if one.fault == fault), None)
        for moment, reason, message in first.said if first else ():
            yield f"| {fault} | {moment:.0f} | {reason} | {message} |"


def main() -> int:
    """Inject each fault several times. Return 1 if a job ended with a wrong result."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    jobs = Kubectl(*cluster(), NAMESPACE)
    operator = Kubectl(jobs.program, jobs.kubeconfig, OPERATOR_NAMESPACE)
    near, _ = placed(operator)
    draw = random.Random(options.seed)
    random.seed(options.seed)
    seen: list[Seen] = []
    faults = [fault for fault in FAULTS if not options.fault or fault in options.fault]
    with namespace(jobs, options.keep, {"nodeSelector": {"kubernetes.io/hostname": near}}) as volume:
        stage = Stage(jobs, operator, volume)
        alone = undisturbed(stage, "alone")
        try:
            for _ in range(options.times):
                for fault in faults:
                    names = [f"lost-{len(seen) + index}" for index in range(options.at_once)]
                    now = play(stage, fault, names, draw.randint(2, STEPS // 2), alone)
                    print(*(json.dumps(vars(one)) for one in now), sep="\n", file=sys.stderr, flush=True)
                    seen += now
                    if options.keep and any(one.wrong for one in now):
                        return 1
                    clear(jobs, names)
        finally:
            print(f"seed {options.seed}, {options.at_once} jobs at once")
            print("\n".join(table(seen)))
    return 1 if any(one.wrong for one in seen) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.nodes", description=__doc__)
    parser.add_argument(
        "--times", type=int, default=10, help="number of times that each fault is injected (default 10)"
    )
    parser.add_argument(
        "--at-once",
        type=int,
        default=1,
        help="number of jobs on the node when it is drained, killed or cut off (default 1)",
    )
    parser.add_argument(
        "--fault", action="append", choices=FAULTS, help="inject only this fault; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed for the random moments (default 0)")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="stop after the first wrong result, and keep the namespace for inspection",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
