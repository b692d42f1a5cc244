"""``rft grade``: runs a job's graders on completions, without a model and without training."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rft_cli.commands.run import by_name
from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_cli.local import contacts, grading
from rft_cli.local.contacts import Shell
from rft_cli.local.grading import Answer
from rft_cli.local.inputs import Overrides
from rft_cli.local.manifest import Manifest, load
from rft_cli.options import SendTokenTo
from rft_cli.render.console import err, out, reports_errors
from rft_cli.render.rollouts import indented
from rft_run.folder import RunFolder

if TYPE_CHECKING:
    from rft_graders.types import Score

_NAMED_ROWS = 10
"""Maximum number of rows that the summary names for each grader."""


@reports_errors
def grade(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Manifest with one RFTJob.")],
    completions: Annotated[
        Path | None, typer.Option(help="File of JSON lines: texts, or objects with line and completion.")
    ] = None,
    row: Annotated[int | None, typer.Option(min=1, help="Line of the row that --completion answers.")] = None,
    completion: Annotated[str | None, typer.Option(help="A completion of --row.")] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="A run's recorded rollouts.")
    ] = None,
    step: Annotated[
        int | None, typer.Option(min=1, help="Step to grade, with --from. If absent: the newest.")
    ] = None,
    gold_field: Annotated[
        str | None,
        typer.Option(
            "--answer",
            metavar="FIELD",
            help="The rows' field with the gold answer. If absent: the one that a grader reads.",
        ),
    ] = None,
    dataset: Annotated[Path | None, typer.Option(help="File with rows. It replaces spec.dataset.")] = None,
    grader: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="File with the code of a grader; may be repeated."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of completions to grade.")] = 256,
    send_token_to: SendTokenTo = None,
) -> None:
    """Run the job's graders on given or recorded completions, or on the gold (right) answer of each row.

    The output has the score, the error and the printed text of every grader. Users' code runs in worker
    processes, as in a local run.

    Exit code 1: a grader failed; 2: a file cannot be read.
    """
    if (row is None) != (completion is None):
        raise UserError("--row and --completion belong together; give both or neither", UNREADABLE)
    chosen = [
        name for name, value in (("--completions", completions), ("--row", row), ("--from", from_)) if value
    ]
    if len(chosen) > 1:
        raise UserError(f"{' and '.join(chosen)} exclude each other; give only one", UNREADABLE)
    if chosen and gold_field is not None:
        raise UserError(f"--answer is only for gold answers; leave out --answer or {chosen[0]}", UNREADABLE)
    manifest = load(file)
    overrides = Overrides(dataset, None, by_name(grader or []))
    answers = _answers(manifest, dataset, completions, row, completion, from_, step, gold_field)
    if len(answers) > limit:
        out().print(
            f"graded: the first {limit} of {len(answers)} completions; a larger --limit grades more",
            markup=False,
        )
    answers = answers[:limit]
    contacted = contacts.graders(manifest.job.spec.graders, Shell.of_this_process())
    contacts.refuse_untrusted(contacted, contacts.permissions(send_token_to or []))
    for contact in contacted:
        err().print(f"contacts {contact}", markup=False)
    scores = grading.scored(manifest, overrides, answers)
    for answer, score in zip(answers, scores, strict=True):
        out().print(_line(answer, score), markup=False, highlight=False)
    names = [each.name for each in manifest.job.spec.graders]
    out().print("\n".join(_summary(names, scores)), markup=False, highlight=False)
    if not chosen:
        out().print("\n".join(_gold_summary(names, answers, scores)), markup=False, highlight=False)
    raise typer.Exit(INVALID if any(score.errors for score in scores) else 0)


def _answers(
    manifest: Manifest,
    dataset: Path | None,
    completions: Path | None,
    row: int | None,
    completion: str | None,
    folder: Path | None,
    step: int | None,
    gold_field: str | None,
) -> list[Answer]:
    if folder is not None:
        return grading.recorded(RunFolder(folder), step)
    rows = grading.rows_of_dataset(manifest, dataset)
    if completions is not None:
        return grading.given(completions, rows)
    if row is not None and completion is not None:
        return grading.one(rows, row, completion)
    return grading.gold(rows, manifest.job.spec.graders, gold_field)


def _line(answer: Answer, score: "Score") -> str:
    reward = "none" if score.reward is None else f"{score.reward:.3f}"
    parts = [f"{name} {value:.3f}" for name, value in score.per_grader.items()]
    lines = [f"row {answer.row.line}: reward {reward} ({', '.join(parts)})"]
    for name, said in score.errors.items():
        lines += indented(f"{name} failed: {said}", "  ")
    for name, text in score.printed.items():
        lines += [f"  {name} printed:", *indented(text.removesuffix("\n"), "    ")]
    return "\n".join(lines)


def _summary(names: Sequence[str], scores: "Sequence[Score]") -> list[str]:
    lines = []
    for name in names:
        values = [score.per_grader[name] for score in scores if name in score.per_grader]
        errors = sum(name in score.errors for score in scores)
        mean = f"mean {sum(values) / len(values):.3f} of {len(values)}" if values else "no score"
        lines.append(f"{name}: {mean}{f', {errors} failed' if errors else ''}")
    return lines


def _gold_summary(names: Sequence[str], answers: Sequence[Answer], scores: "Sequence[Score]") -> list[str]:
    """Return lines that say, for each grader, to which gold answers it does not give the score 1.

    A gold answer is the right answer that the dataset has for a row, graded in place of a completion.

    - ``names``: the names of the graders, in the order of the lines
    - ``answers``, ``scores``: the gold answers, and in the same order the scores of each gold answer
    """
    below: dict[str, list[int]] = {}
    for answer, name in grading.not_full(answers, scores):
        below.setdefault(name, []).append(answer.row.line)
    if not below:
        return [f"all {len(answers)} gold answers get the score 1"]
    lines = []
    for name in (name for name in names if name in below):
        rows = below[name]
        more = f" and {len(rows) - _NAMED_ROWS} more" if len(rows) > _NAMED_ROWS else ""
        shown = ", ".join(map(str, rows[:_NAMED_ROWS]))
        lines.append(
            f"{len(rows)} of {len(answers)} gold answers do not get the score 1 from {name}:"
            f" rows {shown}{more}"
        )
    return lines
