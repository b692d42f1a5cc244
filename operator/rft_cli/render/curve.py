"""Reads the points of a reward curve from the records of a run or from an RFTJob, and draws the curve."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rft_cli.render.console import Terminal
from rft_cli.render.plot import Point, line_chart
from rft_run.steps import StepRecord

AXIS_COLUMNS = 12
MIN_WIDTH, MAX_WIDTH = 20, 100


class HeldOutReward(NamedTuple):
    """The mean rewards of the base policy and of the tuned policy on held-out rows, from 0 to 1.

    The reward of a policy that has not been evaluated is None.
    """

    base: float | None = None
    tuned: float | None = None


def points_of_steps(records: Iterable[StepRecord]) -> list[Point]:
    """Return the points of the reward curve of a run: x is the number of a step, y its mean reward.

    Steps without a graded rollout are left out, because they have no reward.
    """
    return [(float(record.step), record.reward) for record in records if record.reward is not None]


def points_of_job(job: Mapping[str, Any]) -> list[Point]:
    """Return the points of an RFTJob's reward curve: x is the number of a step, y its mean reward.

    The points are in ``status.reward.history`` of the RFTJob.
    """
    points = ((job.get("status") or {}).get("reward") or {}).get("history") or []
    return [(float(point["step"]), float(point["reward"])) for point in points]


def steps_of_job(job: Mapping[str, Any]) -> list[StepRecord]:
    """Return the points in ``status.reward.history`` of an RFTJob as records of steps.

    The records have only the step, its reward, and the mean score of each grader.
    """
    points = ((job.get("status") or {}).get("reward") or {}).get("history") or []
    return [
        StepRecord(step=int(point["step"]), reward=float(point["reward"]), graders=point.get("graders") or {})
        for point in points
    ]


def held_out_of_job(job: Mapping[str, Any]) -> HeldOutReward:
    """Return the held-out rewards of base and tuned policy, from ``status.evaluation`` of an RFTJob."""
    found = ((job.get("status") or {}).get("evaluation") or {}).get("reward") or {}
    return HeldOutReward(found.get("base"), found.get("tuned"))


def chart_width(columns: int) -> int:
    """Return the width of a chart, without its vertical axis, for a terminal of the width ``columns``.

    Both widths are in characters. The result is from 20 to 100.
    """
    return max(MIN_WIDTH, min(columns - AXIS_COLUMNS, MAX_WIDTH))


def print_curve(console: Terminal, points: Sequence[Point]) -> None:
    """Draw the chart of a reward curve on the terminal.

    The width of the chart follows the width of the terminal, from 20 to 100 characters. The chart is
    ASCII if the terminal's encoding has no braille characters.
    """
    ascii_only = not console.encoding.lower().startswith("utf")
    chart = line_chart(points, width=chart_width(console.width), ascii_only=ascii_only)
    console.print(chart, markup=False)
