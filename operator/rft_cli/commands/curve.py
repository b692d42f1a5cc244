"""``rft curve``: draws the reward curve of a run, from a job in the cluster, a run's folder or a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from rft_api.loader import UnreadableManifest, load_documents
from rft_cli.errors import UNREADABLE, UserError
from rft_cli.local import records
from rft_cli.local.snapshot import previous
from rft_cli.options import Context, Namespace, connect
from rft_cli.render.console import out, reports_errors
from rft_cli.render.curve import (
    HeldOutReward,
    held_out_of_job,
    points_of_steps,
    print_curve,
    steps_of_job,
)
from rft_cli.render.png import write_png
from rft_run import run_files
from rft_run.folder import RunFolder
from rft_run.steps import StepRecord


class Loaded(NamedTuple):
    """The data for drawing a run's reward curve: the run's name, the records of its steps, and the held-out
    rewards before and after training.
    """

    name: str
    steps: Sequence[StepRecord]
    held_out: HeldOutReward = HeldOutReward()


@reports_errors
def curve(
    source: Annotated[
        str, typer.Argument(metavar="NAME|DIR|FILE", help="A job, the folder of a run, or its metrics.jsonl.")
    ],
    png: Annotated[Path | None, typer.Option(help="Also draw the curve into this image file.")] = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Draw the reward curve of a job in the cluster, or of a run on this machine."""
    found = load_curve(source, context, namespace)
    print_curve(out(), points_of_steps(found.steps))
    if png is not None:
        write_png(found.steps, png, found.name, found.held_out)
        out().print(f"\nwritten to {png}", markup=False)


def load_curve(source: str, context: str | None, namespace: str | None) -> Loaded:
    """Return the data for drawing a run's reward curve. A run may be without any reward yet.

    ``source`` is one of these:

    - the path of a run's folder
    - the path of a YAML file with an RFTJob, or with its status
    - the path of any other file, which is read as ``metrics.jsonl``
    - the name of a job in the cluster

    Raises:
        UserError: if there is no such folder, file or job, or if it cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        return _of_folder(path)
    if path.is_file():
        named = path.resolve()  # a link that the user named is followed
        if path.suffix in (".yaml", ".yml"):
            return _of_status(named)
        return Loaded(source, records.steps(named))
    if "/" in source or path.suffix:
        raise UserError(f"{source}: there is no such file or folder", UNREADABLE)
    return _of_job(connect(context, namespace).job(source), source)


def _of_folder(path: Path) -> Loaded:
    run = RunFolder(path)
    if not run.metrics.is_file():
        raise UserError(
            f"{path}: has no {run.metrics.name}; name a folder that rft run has written", UNREADABLE
        )
    config, evaluation = previous(path), records.status(run.status).evaluation
    reward = evaluation.reward if evaluation is not None else None
    name = config.job.name if config is not None else path.resolve().name
    levels = HeldOutReward(reward.base, reward.tuned) if reward is not None else HeldOutReward()
    return Loaded(name, records.steps(run.metrics), levels)


def _of_job(job: dict[str, object], name: str) -> Loaded:
    return Loaded(name, steps_of_job(job), held_out_of_job(job))


def _of_status(path: Path) -> Loaded:
    """Return the data for the reward curve from a YAML file with a job's status, or with a whole RFTJob.

    Raises UserError if the file cannot be read, or has no status with rewards.
    """
    try:
        text = run_files.text(path, run_files.STATUS_BYTES, follow=True)
        body = load_documents(text, str(path))[0].body
        return _of_job(body if "status" in body else {"status": body}, path.stem)
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
            f"{path}: has no reward history; name a status.yaml, or an RFTJob with its status",
            UNREADABLE,
        ) from error
