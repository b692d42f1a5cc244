"""One round: applies jobs, injects one fault while they run, and checks how they end."""

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from rft_run.events import StepEvent, parse
from tests.chaos.faults import Fault, Target
from tests.chaos.jobs import CHECKPOINT_EVERY, NAME_LABEL, STEPS, job
from tests.chaos.lives import Life, at_once, lives, read
from tests.cluster.layout import default_layout
from tests.kubectl import Kubectl, Object
from tests.waiting import wait_until

EARLIEST_SECONDS = 0.5
"""A fault is injected at least this many seconds after its job was applied."""
END_SECONDS = 900.0
ROUNDING = 0.5e-4
"""Largest rounding error of a reward in the status, which has four decimals."""
RECORD = ("step", "reward", "attempt")


@dataclass(frozen=True)
class Moments:
    """Draws random times for faults, in seconds after a job was applied."""

    seed: int
    latest: float
    """Latest time of a fault, in seconds after its job was applied: the duration of an undisturbed job."""

    def drawn(self, name: str, count: int) -> list[float]:
        """Return ``count`` random times of a fault, the latest first, in seconds after a job was applied.

        ``name`` is part of the seed.
        """
        source = random.Random(f"{name}/{self.seed}")
        latest = max(EARLIEST_SECONDS, self.latest)
        return sorted((source.uniform(EARLIEST_SECONDS, latest) for _ in range(count)), reverse=True)


@dataclass
class Outcome:
    """The result of a round for one job."""

    fault: str
    after: float
    """Seconds from when the job was applied until the fault was injected."""
    seconds: float = 0.0
    attempts: int = 0
    lost: int = 0
    """Number of completed steps that were lost, so that a later attempt repeated them."""
    wrong: list[str] = field(default_factory=list)
    pods: int = 0
    """Number of trainer pods that ran."""
    samplers: int = 0
    """Number of restarts of vLLM within a pod."""
    hit: bool = True
    """Whether the fault hit the job. False if the job had ended before the fault. Some faults must interrupt
    the job. For such a fault it is also False if the job was not interrupted."""


def play(
    fault: Fault, jobs: Kubectl, operator: Kubectl, names: Sequence[str], engine: str, when: Moments
) -> list[Outcome]:
    """Apply the jobs ``names``, and inject one fault into all of them at once. Return an outcome for each.

    ``when`` draws at random how long before the fault each job is applied.
    """
    moments = when.drawn(fault.name, len(names))
    log = default_layout().logs / "audit.log"
    offset = log.stat().st_size
    fault_at = time.monotonic() + moments[0]
    for name, moment in zip(names, moments, strict=True):
        time.sleep(max(0.0, fault_at - moment - time.monotonic()))
        jobs.apply(job(name, engine, fault.lost_node_seconds))
    time.sleep(max(0.0, fault_at - time.monotonic()))
    before = [_status(jobs, name) for name in names]
    fault.inject(Target(jobs, operator, tuple(names)))
    outcomes = [
        _judged(jobs, name, Outcome(fault.name, round(moment, 1)), _step(found), partial(read, log, offset))
        for name, moment, found in zip(names, moments, before, strict=True)
    ]
    for outcome, found in zip(outcomes, before, strict=True):
        interrupted = outcome.pods > 1 or outcome.samplers > 0
        outcome.hit = not is_over(found) and (interrupted or not fault.interrupts)
    return outcomes


def _judged(
    jobs: Kubectl, name: str, outcome: Outcome, before: int, audited: Callable[[str], Iterator[Object]]
) -> Outcome:
    """Wait until the job ends. Check its status, files and trainers. Return ``outcome`` with the results.

    - ``before`` is the step that the status had when the fault was injected.
    - ``audited`` is a function. It returns the audit events that contain a given name.
    """
    wait_until(f"{name} ends", lambda: ended(jobs, name), END_SECONDS, poll=1.0)
    rftjob = jobs.get("rftjob", name)
    found, metadata = rftjob["status"], rftjob["metadata"]
    over, applied = found["completionTime"], metadata["creationTimestamp"]
    outcome.seconds = (datetime.fromisoformat(over) - datetime.fromisoformat(applied)).total_seconds()
    progress = found.get("progress", {})
    outcome.attempts, outcome.samplers = progress.get("attempt", 0), progress.get("samplersRestarted", 0)
    trainers = lives(audited(name), metadata["uid"])
    outcome.pods = len(trainers)
    reached = max(before, *(last_step(log) for log in logs(jobs, name)), 0)
    outcome.wrong = list(what_is_wrong(found, recorded(jobs, found), trainers, reached, outcome))
    return outcome


def what_is_wrong(
    found: Object, record: list[Object], trainers: list[Life], reached: int, outcome: Outcome
) -> Iterator[str]:
    """Yield each error in how a job ended. Also set ``outcome.lost``.

    - ``found`` is the job's status.
    - ``record`` are the rows of the job's ``metrics.jsonl``.
    - ``trainers`` are the start and end times of each trainer.
    - ``reached`` is the highest step that the interrupted attempts are known to have completed.
    """
    if found.get("phase") != "Succeeded":
        yield f"ended as {found.get('phase')}: {found.get('message')}"
        return
    if found["progress"]["step"] != STEPS:
        yield f"ended at step {found['progress']['step']} of {STEPS}"
    if [row["step"] for row in record] != list(range(1, STEPS + 1)):
        yield f"metrics.jsonl has the steps {[row['step'] for row in record]}"
    history = {point["step"]: point["reward"] for point in found["reward"]["history"]}
    recorded_rewards = {row["step"]: row["reward"] for row in record}
    different = [step for step in history if abs(history[step] - recorded_rewards.get(step, 2.0)) > ROUNDING]
    if different:
        yield f"the rewards in the status and in metrics.jsonl differ at steps {different}"
    if outcome.attempts > 1:
        outcome.lost = max(0, reached - found["progress"]["resumedFromStep"])
        if outcome.lost > CHECKPOINT_EVERY:
            yield f"{outcome.lost} steps lost, allowed {CHECKPOINT_EVERY}; step {reached} had been completed"
    for one, other, seconds in at_once(trainers):
        yield f"two trainers ran at the same time for {seconds:.0f} s: {one} and {other}"


def logs(jobs: Kubectl, name: str) -> Iterator[str]:
    """Yield the logs of a job's failed trainers whose pods still exist."""
    for pod in jobs.list("pods", f"{NAME_LABEL}={name}"):
        if pod["status"]["phase"] == "Failed":
            yield jobs.run("logs", pod["metadata"]["name"], "-c", "trainer", check=False).stdout


def last_step(log: str) -> int:
    """Return the highest step in a trainer's log, or 0 if the log has no step."""
    events = map(parse, log.splitlines())
    return max((event.step for event in events if isinstance(event, StepEvent)), default=0)


def recorded(jobs: Kubectl, found: Object) -> list[Object]:
    """Return step, reward and attempt of each row of ``metrics.jsonl``. ``found`` is the job's status."""
    folder = found.get("output", {}).get("folder")
    if not folder:
        return []
    lines = jobs.run("exec", "reader", "--", "cat", f"{folder}/metrics.jsonl", check=False).stdout
    return [{name: row.get(name) for name in RECORD} for row in map(json.loads, lines.splitlines())]


def _step(found: Object) -> int:
    return int(found.get("progress", {}).get("step", 0))


def is_over(found: Object) -> bool:
    """Return whether a job with this status has ended."""
    return found.get("phase") in ("Succeeded", "Failed", "Cancelled")


def ended(jobs: Kubectl, name: str) -> Object | None:
    """Return the status of a job if it has ended, else None."""
    found = _status(jobs, name)
    return found if is_over(found) else None


def _status(jobs: Kubectl, name: str) -> Object:
    """Return the status of a job; {} while the API server does not answer."""
    result = jobs.run("get", "rftjob", name, "-o", "json", check=False)
    return dict(json.loads(result.stdout).get("status") or {}) if result.returncode == 0 else {}


def table(outcomes: list[Outcome], names: list[str]) -> Iterator[str]:
    """Yield the lines of a table with one row for each of the faults ``names`` that has outcomes."""
    yield (
        "| fault | jobs | jobs hit | right results | seconds from apply to the fault "
        "| most attempts | most steps repeated | most seconds until the job's end |"
    )
    yield "|---|--:|--:|--:|---|--:|--:|--:|"
    for name in names:
        of = [outcome for outcome in outcomes if outcome.fault == name]
        if not of:
            continue
        attempts, lost, seconds = (
            max(one.attempts for one in of), max(one.lost for one in of), max(one.seconds for one in of)
        )  # fmt: skip
        moments = f"{min(one.after for one in of):.0f} to {max(one.after for one in of):.0f}"
        hit, right = sum(one.hit for one in of), sum(not one.wrong for one in of)
        yield f"| {name} | {len(of)} | {hit} | {right} | {moments} | {attempts} | {lost} | {seconds:.0f} |"
