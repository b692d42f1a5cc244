"""Collects the data that the report of a run shows, from the run's folder on this machine or from an RFTJob
in a cluster.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from rft_api.job import RFTJobSpec
from rft_api.problems import join_path
from rft_api.status import Plan, RFTJobStatus
from rft_cli.errors import UNREADABLE, UserError
from rft_cli.local import records
from rft_cli.local.snapshot import previous
from rft_run.evaluation import EvaluationRecord
from rft_run.folder import RunFolder
from rft_run.rollouts import RolloutRecord
from rft_run.steps import StepRecord

GROUPS = 2
"""Number of prompts whose rollouts a report shows for a step. It shows the first and the last step that have
rollouts."""


class HeldOut(NamedTuple):
    """The result of one held-out evaluation: the step after which the policy was evaluated, and the mean
    reward.

    The reward is from 0 to 1, or None if no row was graded.
    """

    step: int
    reward: float | None


class SampledStep(NamedTuple):
    """Examples of rollouts from one training step. Each group has the rollouts of one prompt."""

    step: int
    groups: Sequence[Sequence[RolloutRecord]]


class ReportedRun(NamedTuple):
    """The data that the report of a run shows. A field is empty or None if its data do not exist yet."""

    name: str
    spec: RFTJobSpec
    status: RFTJobStatus
    steps: Sequence[StepRecord] = ()
    """The metrics of all steps. For an RFTJob in a cluster, only the points of the reward curve in its
    status."""
    held_out: Sequence[HeldOut] = ()
    """All held-out evaluations, in the order of the steps."""
    base: EvaluationRecord | None = None
    tuned: EvaluationRecord | None = None
    """``base`` is the first held-out evaluation. ``tuned`` is the last one, if there are two or more."""
    sampled: Sequence[SampledStep] = ()
    """Examples of rollouts from the first step and from the last step that has rollouts."""


def of_folder(folder: Path) -> ReportedRun:
    """Return the data for the report of the run in ``folder``, a folder on this machine.

    Raises:
        UserError: if the folder has no run, or a file in it cannot be read.
    """
    run, config = RunFolder(folder), previous(folder)
    if config is None:
        raise UserError(
            f"{folder}: has no {run.config.name}; name a folder that rft run has written, or a job",
            UNREADABLE,
        )
    status = records.status(run.status)
    if status.plan is None or status.plan.effective is None:
        plan = status.plan or Plan(device=config.device, gpus=config.gpus)
        status = status.model_copy(update={"plan": plan.model_copy(update={"effective": config.effective})})
    evaluated = run.evaluated_steps()
    base = records.evaluation(run, evaluated[0]) if evaluated else None
    tuned = records.evaluation(run, evaluated[-1]) if len(evaluated) > 1 else None
    between = (records.evaluation(run, step) for step in evaluated[1:-1])
    every = itertools.chain([base] if base else [], between, [tuned] if tuned else [])
    return ReportedRun(
        config.job.name,
        config.spec,
        status,
        records.steps(run.metrics),
        [HeldOut(found.step, found.mean_reward) for found in every],
        base,
        tuned,
        list(_sampled(run)),
    )


def of_job(name: str, job: Mapping[str, Any]) -> ReportedRun:
    """Return the data for the report of an RFTJob in a cluster, from its spec and its status.

    - ``name``: the name of the job
    - ``job``: the RFTJob as a JSON object

    Raises:
        UserError: if this release does not know a field of the RFTJob.
    """
    try:
        spec = RFTJobSpec.model_validate(job["spec"])
        status = RFTJobStatus.model_validate(job.get("status") or {})
    except ValidationError as error:
        field = join_path(error.errors()[0]["loc"])
        raise UserError(
            f"{name}: {field} is not known to this rft; use the same version of rft as the operator"
        ) from error
    return ReportedRun(name, spec, status, steps_of_status(status))


def steps_of_status(status: RFTJobStatus) -> list[StepRecord]:
    """Return the points of the reward curve in a status as records of steps, which have only the rewards."""
    points = status.reward.history if status.reward is not None else []
    return [StepRecord(step=point.step, reward=point.reward, graders=point.graders or {}) for point in points]


def _sampled(run: RunFolder) -> Iterator[SampledStep]:
    steps = run.steps_with_rollouts()
    for step in dict.fromkeys([*steps[:1], *steps[-1:]]):
        rollouts = records.rollouts_in_turn(run.rollouts_of(step))
        groups = itertools.groupby(rollouts, key=lambda record: record.line)
        yield SampledStep(step, [list(group) for _, group in itertools.islice(groups, GROUPS)])
