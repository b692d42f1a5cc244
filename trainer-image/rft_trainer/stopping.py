"""Early stopping: decides before each step whether a rule of ``spec.stop`` ends the training."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from rft_advice.canary import Fall
from rft_api.conditions import Reason
from rft_api.lifecycle import Stop, read_moment
from rft_run.state import RunState


@dataclass(frozen=True)
class Moment:
    """The values that the stop rules check before a training step.

    - ``state``: the progress of the run after the last complete step.
    - ``heldout_reward``: the mean held-out reward after this step. None: the step was not evaluated.
    - ``now``: the current time.
    """

    state: RunState
    heldout_reward: float | None
    now: datetime
    fall: Fall | None = None
    """The largest fall of a canary's mean score while the reward rose. A canary is a grader of weight 0.

    None: no canary fell by at least ``stop.canary``.
    """


def _canary(stop: Stop, moment: Moment) -> bool:
    return stop.canary is not None and moment.fall is not None


def _max_steps(stop: Stop, moment: Moment) -> bool:
    return stop.max_steps is not None and moment.state.step >= stop.max_steps


def _target_reward(stop: Stop, moment: Moment) -> bool:
    reward = moment.heldout_reward
    return stop.target_reward is not None and reward is not None and reward >= stop.target_reward


def _patience(stop: Stop, moment: Moment) -> bool:
    return stop.patience is not None and moment.state.evaluations_without_best >= stop.patience


def _gpu_hours(stop: Stop, moment: Moment) -> bool:
    return stop.max_gpu_hours is not None and moment.state.gpu_seconds >= stop.max_gpu_hours * 3600


def _deadline(stop: Stop, moment: Moment) -> bool:
    if stop.deadline is None:
        return False
    return moment.now >= read_moment(stop.deadline)


RULES: tuple[tuple[Callable[[Stop, Moment], bool], str], ...] = (
    (_canary, Reason.CANARY),
    (_target_reward, Reason.TARGET_REWARD),
    (_patience, Reason.PATIENCE),
    (_max_steps, Reason.MAX_STEPS),
    (_gpu_hours, Reason.MAX_GPU_HOURS),
    (_deadline, Reason.DEADLINE),
)
"""The stop rules with their reasons, in the order in which they are checked before every step."""


def stop_reason(
    stop: Stop | None,
    state: RunState,
    heldout_reward: float | None,
    now: datetime,
    fall: Fall | None = None,
) -> str | None:
    """Return the reason of the first rule in ``stop`` that applies. None: no rule applies.

    - ``stop``: the stop rules of the job. None: there are no rules.
    - ``heldout_reward``: the mean held-out reward after the last step. None: the step was not evaluated.
    - ``now``: the current time.
    - ``fall``: the largest fall of a canary's score (a grader of weight 0) that counts. None: there is none.
    """
    if stop is None:
        return None
    moment = Moment(state, heldout_reward, now, fall)
    return next((reason for rule, reason in RULES if rule(stop, moment)), None)
