"""``rft samples``: shows the rollouts of one training step of a run, with their scores."""

import itertools
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rft_api.controls import as_json
from rft_cli.commands.source import Fetch, run_folder
from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_cli.local import records
from rft_cli.local.brought import PARTS
from rft_cli.options import Context, Namespace, TrainerImage
from rft_cli.render.console import reports_errors, write
from rft_cli.render.rollouts import as_text
from rft_run.folder import ROLLOUTS_SUFFIX, RunFolder, steps_of
from rft_run.rollouts import RolloutRecord


class SamplesFormat(StrEnum):
    """The values of the option ``-o`` of ``rft samples``."""

    TEXT = "text"
    JSON = "json"


@reports_errors
def samples(
    source: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A job, or a run's folder.")],
    step: Annotated[int | None, typer.Option(min=0, help="Step to show. If absent: the newest.")] = None,
    row: Annotated[int | None, typer.Option(min=1, help="Only the row in this line of the dataset.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Prompts to show.")] = 5,
    output: Annotated[
        SamplesFormat, typer.Option("--format", "-o", help="text or json.")
    ] = SamplesFormat.TEXT,
    image: TrainerImage = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Show the rollouts of a step: prompt, completion, graders' scores and output, advantage, finish reason.

    The rollouts of a job in the cluster are read from its volume, as rft download does. Exit code 1: no such
    job, step or row; 2: no such folder.
    """

    def choose(paths: list[str], fetch: Fetch) -> None:
        fetch(_of(source, paths, step))

    with run_folder(source, context, namespace, image, PARTS["rollouts"], choose) as folder:
        _show(RunFolder(folder), step, row, limit, output)


def _of(job: str, paths: list[str], step: int | None) -> list[str]:
    """Return the path of the file with the rollouts of a step, as a list with one item.

    If there are no files with rollouts, return an empty list.

    - ``job``: the name of the job, for messages
    - ``paths``: the paths of all files with rollouts in the job's folder, one for each step
    - ``step``: the training step; None: the newest step that has rollouts

    Raises UserError if ``step`` has no rollouts, but other steps have some.
    """
    steps = steps_of((Path(path).name for path in paths), ROLLOUTS_SUFFIX)
    if not steps:
        return []
    if step is not None and step not in steps:
        raise UserError(f"--step {step}: {job} has rollouts only of the steps {_ranges(steps)}", INVALID)
    return [str(RunFolder(Path()).rollouts_of(steps[-1] if step is None else step))]


def _show(folder: RunFolder, step: int | None, row: int | None, limit: int, output: SamplesFormat) -> None:
    number = _chosen(folder, step)
    sampled = records.rollouts_in_turn(folder.rollouts_of(number))
    lines: list[int] = []
    shown: list[list[RolloutRecord]] = []
    chosen = 0
    for line, group in itertools.groupby(sampled, key=lambda record: record.line):
        lines.append(line)
        if row is None or line == row:
            chosen += 1
            if len(shown) < limit:  # all other groups are read, but not kept in memory
                shown.append(list(group))
    if not chosen:
        known = ", ".join(map(str, lines))
        raise UserError(f"--row {row}: step {number} sampled the rows {known}; name one of them", INVALID)
    if output is SamplesFormat.JSON:
        bodies = [record.dump() for each in shown for record in each]
        write(as_json(bodies))
        return
    for records_of_row in shown:
        write("\n".join(as_text(number, records_of_row)) + "\n")
    if chosen > limit:
        write(f"{limit} of {chosen} prompts of step {number}; --limit shows more, --row LINE shows one")


def _chosen(folder: RunFolder, step: int | None) -> int:
    """Return the number of the step whose rollouts are shown: ``step``, or the newest step if it is None.

    ``folder`` is the run's folder. Only steps with recorded rollouts can be shown.

    Raises:
        UserError: if no step has rollouts, or ``step`` has none.
    """
    found = folder.steps_with_rollouts()
    if not found:
        raise UserError(
            f"{folder.path}: has no {folder.rollouts.name}; name the folder of a run with steps",
            UNREADABLE,
        )
    if step is not None and step not in found:
        said = f"--step {step}: {folder.path} has rollouts only of the steps {_ranges(found)}"
        raise UserError(said, INVALID)
    return found[-1] if step is None else step


def _ranges(steps: Sequence[int]) -> str:
    """Return step numbers as a text such as ``1 to 3, 7``. ``steps`` are in ascending order."""
    parts: list[list[int]] = []
    for step in steps:
        if parts and parts[-1][-1] == step - 1:
            parts[-1].append(step)
        else:
            parts.append([step])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in parts)
