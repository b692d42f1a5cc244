"""``rft curve``: draws the reward curve of a job, a folder or a file."""

from pathlib import Path
from typing import Annotated

import typer

from rft_api.loader import UnreadableManifest, load_documents
from rft_cli.errors import UNREADABLE, UserError
from rft_cli.local import records
from rft_cli.options import Context, Namespace, connect
from rft_cli.render.console import out, reports_errors
from rft_cli.render.curve import points_of_job, points_of_steps, print_curve
from rft_cli.render.plot import Point
from rft_cli.render.png import write_png
from rft_run import run_files
from rft_run.folder import RunFolder


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


def load_points(source: str, context: str | None, namespace: str | None) -> list[Point]:
    """Return the reward curve of the folder or file ``source`` if it exists, else of the job with this name.

    Raises:
        UserError: if there is no such folder, file or job, or if it has no reward curve.
    """
    path = Path(source)
    if path.is_dir():
        metrics = RunFolder(path).metrics
        if not metrics.is_file():
            raise UserError(
                f"{path}: holds no {metrics.name}; name a folder that rft run has written", UNREADABLE
            )
        return points_of_steps(records.steps(metrics))
    if path.is_file():
        named = path.resolve()  # a link that the user named is followed
        return (
            _of_status(named) if path.suffix in (".yaml", ".yml") else points_of_steps(records.steps(named))
        )
    if "/" in source or path.suffix:
        raise UserError(f"{source}: there is no such file or folder", UNREADABLE)
    return points_of_job(connect(context, namespace).job(source))


def _of_status(path: Path) -> list[Point]:
    """Return the reward curve in a ``status.yaml`` file, or in a file with an RFTJob."""
    try:
        text = run_files.text(path, run_files.STATUS_BYTES, follow=True)
        body = load_documents(text, str(path))[0].body
        return points_of_job(body if "status" in body else {"status": body})
    except run_files.UnreadableFile as error:
        raise UserError(f"{path}: {error}", UNREADABLE) from error
    except (
        OSError,
        UnreadableManifest,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
    ) as error:
        raise UserError(
            f"{path}: holds no reward history; name a status.yaml, or an RFTJob with its status",
            UNREADABLE,
        ) from error
