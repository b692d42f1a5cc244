"""Draws the reward curve of one run or of several runs into an image file."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rft_api.controls import one_line
from rft_cli.errors import UserError
from rft_cli.render.curve import HeldOutReward, points_of_steps
from rft_cli.render.plot import Point
from rft_cli.render.smoothing import centred_mean, window_of
from rft_run.steps import StepRecord

LABEL = 48
"""Maximum number of characters of a name in the legend. Longer names would leave too little room for curves.
"""
MAX_GRADERS = 8
"""Maximum number of graders in an image. With more, their lines would be hard to distinguish."""


class _Line(NamedTuple):
    label: str
    points: Sequence[Point]
    look: dict[str, Any]


def write_png(
    steps: Sequence[StepRecord], path: Path, title: str, held_out: HeldOutReward | None = None
) -> None:
    """Draw the rewards of a run into the image file ``path``. No display is needed. The image has:

    - the reward of each step, and its centred mean;
    - the centred mean of each grader's scores, for at most eight graders;
    - the held-out rewards of the base and the tuned policy, if ``held_out`` has them.

    Raises:
        UserError: if there is nothing to draw, or the file cannot be written.
    """
    if not points_of_steps(steps):
        raise UserError(f"{path}: no step has a reward yet; nothing to draw")
    _write(list(_lines(steps, held_out or HeldOutReward())), path, title)


def write_comparison_png(curves: Sequence[tuple[str, Sequence[Point]]], path: Path) -> None:
    """Draw the reward curves of several runs into the image file ``path``.

    ``curves`` are pairs of a run's name and the points of its smoothed curve.

    Raises:
        UserError: if there is nothing to draw, or the file cannot be written.
    """
    if not curves:
        raise UserError(f"{path}: no run has a reward yet; nothing to draw")
    lines = [_Line(name, points, {"linewidth": 2}) for name, points in curves]
    _write(lines, path, "reward, centred mean")


def _write(lines: Sequence[_Line], path: Path, title: str) -> None:
    # Imported here, because it takes half a second.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    handles = [
        axes.plot([x for x, _ in line.points], [y for _, y in line.points], **line.look)[0] for line in lines
    ]
    axes.set_title(one_line(title), parse_math=False)
    axes.set(xlabel="step", ylabel="mean reward of the rollouts")
    axes.grid(alpha=0.3)
    legend = axes.legend(handles, [one_line(line.label)[:LABEL] for line in lines], fontsize="small")
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name may have dollar signs
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written: {error}") from error


def _lines(steps: Sequence[StepRecord], held_out: HeldOutReward) -> Iterator[_Line]:
    points = points_of_steps(steps)
    yield _Line("each step", points, {"color": "0.75", "marker": ".", "markersize": 3, "linewidth": 0.8})
    for name in list(dict.fromkeys(name for step in steps for name in step.graders))[:MAX_GRADERS]:
        scores = [(float(step.step), step.graders[name]) for step in steps if name in step.graders]
        yield _Line(name, centred_mean(scores), {"linewidth": 1, "alpha": 0.8})
    label = f"reward, centred mean of {window_of(len(points))} steps"
    yield _Line(label, centred_mean(points), {"color": "C0", "linewidth": 2.2})
    ends = (points[0][0], points[-1][0])
    for label, value, style in (("base", held_out.base, ":"), ("tuned", held_out.tuned, "--")):
        if value is not None and math.isfinite(value):
            level = [(x, value) for x in ends]
            yield _Line(
                f"{label} on held-out rows: {value:.3f}", level, {"color": "black", "linestyle": style}
            )
