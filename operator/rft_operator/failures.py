"""Finds why a pod failed or does not start.

There is one list of checks for a pod that failed, and one for a pod that does not start. In each list, the
first check that applies decides. A check is a pure function. It returns a Failure or a Hindrance, or ``None``
if it does not apply.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rft_api.conditions import Reason
from rft_api.status import Plan
from rft_operator.observe import Pod
from rft_operator.refusals import PULL_REASONS
from rft_run.cluster_text import cluster_text
from rft_run.exit_codes import PERMANENT, REASONS, UNCOUNTED, ExitCode

_LOST_REASONS = ("Evicted", "NodeLost", "NodeShutdown", "Shutdown", "Terminated", "NodeAffinity")
_SIGNALS = (128 + 9, 128 + 15)
"""Exit codes of a trainer that was ended by SIGKILL or SIGTERM before it could send its last report."""
MAX_MESSAGE = 2000
EVICTIONS = 5
"""A run fails after the kubelet has evicted this number of its pods.

The kubelet evicts a pod if its node has too little memory or disk. The next pod of the run would probably be
evicted too."""
STOPS_WITHOUT_STEP = 20
"""A run fails after this number of pods in a row were stopped before they made a step."""


@dataclass(frozen=True)
class Failure:
    """The reason why one pod failed."""

    reason: str
    message: str
    counted: bool = True
    """Whether the failure counts towards ``retry.limit``."""
    permanent: bool = False
    """Whether another attempt would fail in the same way."""


@dataclass(frozen=True)
class Hindrance:
    """The reason why a pod does not start yet. The cause may be temporary, so the job does not fail."""

    reason: str
    message: str


class Case(NamedTuple):
    """A failed pod, and the plan of its run."""

    pod: Pod
    plan: Plan | None


Check = Callable[[Case], Failure | None]


def _exit_code(pod: Pod) -> int | None:
    return pod.trainer.exit_code if pod.trainer is not None else None


def _said(pod: Pod, otherwise: str) -> str:
    """Return the message in which the trainer says why it ended. If there is none, return ``otherwise``.

    The message is in the trainer's last report. Without a report, it is in the termination message of the
    trainer's container.
    """
    if pod.report is not None and pod.report.ending is not None and pod.report.ending.message:
        return pod.report.ending.message
    if pod.report is None and pod.trainer is not None and pod.trainer.message:
        return cluster_text(pod.trainer.message)[-MAX_MESSAGE:]
    return otherwise


def configuration(case: Case) -> Failure | None:
    """Return a Failure if the trainer refused the configuration of the run."""
    return _permanent(case.pod, ExitCode.CONFIGURATION, "the trainer refused its configuration")


def data(case: Case) -> Failure | None:
    """Return a Failure if the trainer cannot use the dataset. The message comes from the trainer, if it sent
    one.
    """
    return _permanent(case.pod, ExitCode.DATA, "the dataset cannot be read")


def user_code(case: Case) -> Failure | None:
    """Return a Failure if an error of a grader with ``onError: fail`` ended the run."""
    return _permanent(case.pod, ExitCode.USER_CODE, "a grader failed, and its onError is fail")


def sampler_mismatch(case: Case) -> Failure | None:
    """Return a Failure if the sampler gives tokens other probabilities than the policy that is trained."""
    said = "the sampler does not sample from the policy that is trained"
    return _permanent(case.pod, ExitCode.SAMPLER_MISMATCH, said)


def _permanent(pod: Pod, code: ExitCode, otherwise: str) -> Failure | None:
    if _exit_code(pod) != code:
        return None
    return Failure(REASONS[code], _said(pod, otherwise), permanent=code in PERMANENT)


def out_of_memory(case: Case) -> Failure | None:
    """Return a Failure if the trainer had too little memory: it reported this, or the kernel killed it at its
    memory limit.
    """
    pod, plan = case
    killed = pod.trainer is not None and pod.trainer.reason == "OOMKilled"
    if not killed and _exit_code(pod) != ExitCode.OUT_OF_MEMORY:
        return None
    limit = f" of {plan.memory}" if killed and plan is not None and plan.memory else ""
    if killed and plan is not None and plan.least_memory:
        limit += f" (the plan needs at least {plan.least_memory})"
    otherwise = f"the kernel ended the trainer at its memory limit{limit}" if killed else "out of memory"
    advice = (
        "raise spec.resources.memory, or lower spec.training.maxContextLength or spec.training.loraRank"
        if killed
        else "lower spec.training.maxContextLength or spec.training.batchSizeTokens"
    )
    said = _said(pod, otherwise)
    # The trainer's own message already names the fields to change.
    return Failure(Reason.OUT_OF_MEMORY, said if "spec." in said else f"{said}; {advice}")


def disk_exceeded(case: Case) -> Failure | None:
    """Return a Failure if the pod wrote more bytes to its node's disk than its limit allows.

    This failure counts towards ``retry.limit``, because the run itself caused it.
    """
    pod, plan = case
    if pod.reason != "Evicted" or "ephemeral" not in pod.message or "limit" not in pod.message:
        return None
    limit = f" of {plan.ephemeral_storage_limit}" if plan is not None and plan.ephemeral_storage_limit else ""
    return Failure(
        Reason.VOLUME,
        f"{pod.message.strip().rstrip('.')}: the trainer's limit{limit} is too low. Raise"
        " spec.resources.ephemeralStorage, or give spec.model.cache a claim for the model",
    )


def preempted_or_lost(case: Case) -> Failure | None:
    """Return a Failure if the pod was preempted, evicted or lost with its node. This failure does not count
    towards ``retry.limit``.
    """
    pod = case.pod
    # Kueue preempts by suspending the Job. This deletes the pod without giving it a reason.
    ended_with_it = pod.deleting and _exit_code(pod) in (None, *_SIGNALS)
    if _exit_code(pod) in UNCOUNTED or pod.disrupted or pod.reason in _LOST_REASONS or ended_with_it:
        text = _said(pod, pod.message or "the pod was stopped")
        return Failure(Reason.RETRYING, f"preempted or lost: {text}", counted=False)
    return None


def volume(case: Case) -> Failure | None:
    """Return a Failure if the run's folder cannot be written."""
    pod = case.pod
    if _exit_code(pod) != ExitCode.VOLUME:
        return None
    return Failure(Reason.VOLUME, _said(pod, "the run's folder cannot be written"))


def grader_container(case: Case) -> Failure | None:
    """Return a Failure if the trainer succeeded, but the grader container failed."""
    pod = case.pod
    if _exit_code(pod) != ExitCode.OK or pod.grader is None or pod.grader.exit_code == 0:
        return None
    why = f"{pod.grader.reason}, " if pod.grader.reason else ""
    said = f"the grader container failed ({why}exit code {pod.grader.exit_code})"
    return Failure(Reason.USER_CODE, said)


def unknown(case: Case) -> Failure | None:
    """Return a Failure for any pod, with the most specific message that is known. This is the last check."""
    pod = case.pod
    code = _exit_code(pod)
    otherwise = pod.message or pod.reason or f"the trainer ended with exit code {code}"
    return Failure(REASONS.get(code or 0, Reason.TRAINER_FAILED), _said(pod, otherwise))


def stopped_too_often(pods: Sequence[Pod], plan: Plan | None) -> Failure | None:
    """Return a Failure if the pods of a run were stopped too often, or ``None`` if the run goes on.

    Too often means ``EVICTIONS`` evictions, or ``STOPS_WITHOUT_STEP`` stops in a row before a step was made.
    Only stops that do not count towards ``retry.limit`` are counted here. ``pods`` are the failed pods of the
    present child Job, oldest first.
    """
    evicted = [pod for pod in pods if pod.reason == "Evicted" and not classify(pod, plan).counted]
    if len(evicted) >= EVICTIONS:
        text = (evicted[-1].message or "the kubelet gave no reason").rstrip(".")
        said = f"Evicted {len(evicted)} times; the last time: {text}. {_room(text)}"
        return Failure(Reason.EVICTED, said, counted=False)
    in_vain = 0
    for pod in reversed(pods):
        if classify(pod, plan).counted or _made_a_step(pod):
            break
        in_vain += 1
    if in_vain < STOPS_WITHOUT_STEP:
        return None
    last = classify(pods[-1], plan).message.rstrip(".")
    return Failure(
        Reason.INTERRUPTED,
        f"Stopped {in_vain} times in a row before a step was made; the last time: {last}. Give the job a"
        " higher priority, or choose nodes that the cloud does not take back, by spec.resources.nodeSelector"
        " and spec.resources.tolerations",
        counted=False,
    )


def _room(text: str) -> str:
    """Return advice on what to change after evictions of the pods. ``text`` is the kubelet's message."""
    if "memory" in text:
        return "Raise spec.resources.memory, so that the scheduler chooses a node with more free memory"
    return (
        "Choose nodes with more free disk by spec.resources.nodeSelector, or give spec.storage a claim in"
        " place of ephemeral storage"
    )


def _made_a_step(pod: Pod) -> bool:
    return pod.report is not None and pod.report.run.progress.step > pod.report.resumed_from_step


CHAIN: tuple[Check, ...] = (
    configuration,
    data,
    user_code,
    sampler_mismatch,
    out_of_memory,
    disk_exceeded,
    preempted_or_lost,
    volume,
    grader_container,
    unknown,
)


def classify(pod: Pod, plan: Plan | None) -> Failure:
    """Return why a pod failed, as found by the first check of ``CHAIN`` that applies."""
    for check in CHAIN:
        failure = check(Case(pod, plan))
        if failure is not None:
            return failure
    raise AssertionError("the last check of CHAIN must return a Failure for every pod")


def image_pull(pod: Pod) -> Hindrance | None:
    """Return a Hindrance if the container image of the pod cannot be pulled."""
    if pod.waiting is None or pod.waiting.reason not in PULL_REASONS:
        return None
    return Hindrance(Reason.IMAGE_PULL, f"{pod.waiting.reason}: {pod.waiting.message}")


def unschedulable(pod: Pod) -> Hindrance | None:
    """Return a Hindrance if the scheduler finds no node for the pod."""
    return Hindrance(Reason.UNSCHEDULABLE, pod.unschedulable) if pod.unschedulable else None


def container_waits(pod: Pod) -> Hindrance | None:
    """Return a Hindrance if a container waits to start for any other reason than its image.

    For example, a Secret is missing, or the container cannot be created.
    """
    if pod.waiting is None:
        return None
    return Hindrance(Reason.CANNOT_START, f"{pod.waiting.reason}: {pod.waiting.message}")


HINDRANCES: tuple[Callable[[Pod], Hindrance | None], ...] = (unschedulable, image_pull, container_waits)


def hindrance(pod: Pod) -> Hindrance | None:
    """Return why a pod does not start, or ``None`` if nothing prevents it."""
    return next((found for check in HINDRANCES if (found := check(pod)) is not None), None)
