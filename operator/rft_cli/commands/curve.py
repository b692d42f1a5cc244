"""``rft curve``: draws the reward curve of a job, a folder or a file."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rft_api.loader import UnreadableManifest, load_file
from rft_cli.errors import UNREADABLE, UserError
from rft_cli.options import Context, Namespace, connect
from rft_cli.render.console import out, reports_errors
from rft_cli.render.plot import Point, line_chart
from rft_cli.render.png import write_png
from rft_cli.render.views import history

METRICS_FILE = "metrics.jsonl"
STATUS_FILE = "status.yaml"
AXIS_COLUMNS = 12
MAX_WIDTH = 100


@reports_errors
def curve(
    source: Annotated[
        str, typer.Argument(metavar="NAME|DIR|FILE", help="A job, a folder, or metrics.jsonl.")
    ],
    png: Annotated[Path | None, typer.Option(help="Also draw it into this file.")] = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Draw the reward curve: of a job in the cluster, or of a run on this machine."""
    points = load_points(source, context, namespace)
    print_curve(out(), points)
    if png is not None:
        write_png(points, png, source)
        out().print(f"\nwritten to {png}", markup=False)


def load_points(source: str, context: str | None = None, namespace: str | None = None) -> list[Point]:
    """Return the curve of the folder or file ``source`` if it exists, else of the job of that name."""
    path = Path(source)
    if path.is_dir():
        if not (path / METRICS_FILE).is_file():
            raise UserError(f"{path}: holds no {METRICS_FILE}; name a folder of rft run", UNREADABLE)
        return read_metrics(path / METRICS_FILE)
    if path.is_file():
        return read_status(path) if path.suffix in (".yaml", ".yml") else read_metrics(path)
    if "/" in source or path.suffix:
        raise UserError(f"{source}: there is no such file or folder", UNREADABLE)
    return history(connect(context, namespace).job(source))


def read_metrics(path: Path) -> list[Point]:
    """Return step and mean reward of every row of ``metrics.jsonl``.

    A step without a graded rollout has no point. A last line without newline is still being written and is
    left out. Raises UserError for any other line that is not a row.
    """
    points: list[Point] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], start=1):
        try:
            row = json.loads(line)
            if row["reward"] is not None:
                points.append((float(row["step"]), float(row["reward"])))
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path}: line {number}: has no step and reward", UNREADABLE) from error
    return points


def read_status(path: Path) -> list[Point]:
    """Return the curve of a ``status.yaml``, or of a saved RFTJob."""
    try:
        body = load_file(path)[0].body
        return history(body if "status" in body else {"status": body})
    except (UnreadableManifest, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: holds no reward history", UNREADABLE) from error


def print_curve(console: Console, points: list[Point]) -> None:
    """Draw a curve as wide as the terminal; in ASCII where the encoding has no braille characters."""
    width = max(20, min(console.width - AXIS_COLUMNS, MAX_WIDTH))
    chart = line_chart(points, width=width, ascii_only=not console.encoding.lower().startswith("utf"))
    console.print(chart, markup=False)
