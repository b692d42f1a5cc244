"""Draws the reward curve as a PNG image."""

from collections.abc import Sequence
from pathlib import Path

from rft_api.controls import one_line
from rft_cli.errors import UserError
from rft_cli.render.plot import Point

SMOOTHED_OVER = 5
"""Number of points that the trailing mean of the reward covers."""


def trailing_mean(values: Sequence[float], window: int) -> list[float]:
    """Return for each value the mean of the value and of up to ``window - 1`` values before it."""
    windows = [values[max(0, i + 1 - window) : i + 1] for i in range(len(values))]
    return [sum(near) / len(near) for near in windows]


def write_png(points: Sequence[Point], path: Path, title: str) -> None:
    """Write an image of the reward curve and its trailing mean. No display is needed.

    Raises:
        UserError: if there is nothing to draw, or the file cannot be written.
    """
    # Imported here, because it takes half a second.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not points:
        raise UserError(f"{path}: no step has a reward yet; nothing to draw")
    steps, rewards = [x for x, _ in points], [y for _, y in points]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(steps, rewards, color="0.7", marker=".", linewidth=1, label="step")
    axes.plot(steps, trailing_mean(rewards, SMOOTHED_OVER), linewidth=2, label=f"mean of {SMOOTHED_OVER}")
    axes.set_title(one_line(title), parse_math=False)
    axes.set(xlabel="step", ylabel="mean reward of the rollouts")
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written: {error}") from error
