"""Finds the completions for ``rft grade``, and computes their scores.

The completions are the right answers in the rows (gold answers), those in a file, or the rollouts of a run.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rft_api.graders import Grader, StringCheck
from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_cli.local import records
from rft_cli.local.inputs import Overrides, located, located_graders
from rft_cli.local.manifest import Manifest
from rft_cli.local.rows import RowLine, opened, row_lines
from rft_graders.template import parts, root_of
from rft_run.errors import DataError, TrainerError
from rft_run.folder import RunFolder
from rft_run.rows import RowLayout

if TYPE_CHECKING:
    from rft_graders.types import Score


GOLD_FIELD = "answer"
"""Name of the row's field with the gold answer, if no grader names a field."""


class Answer(NamedTuple):
    """A completion to grade, and the row with its prompt."""

    row: RowLine
    completion: str


def rows_of_dataset(manifest: Manifest, dataset: Path | None) -> list[RowLine]:
    """Return the rows of the file ``dataset``, or of ``spec.dataset`` if ``dataset`` is None.

    Raises:
        UserError: if the rows cannot be read.
    """
    source = manifest.job.spec.dataset
    given = located(manifest, "spec.dataset", source, dataset, "--dataset", Path())
    try:
        with opened(given) as file:
            return list(row_lines(file, given.location, RowLayout.of(source)))
    except DataError as error:
        raise UserError(str(error), UNREADABLE) from error


def gold(rows: Sequence[RowLine], graders: Sequence[Grader], answer: str | None = None) -> list[Answer]:
    """Return the gold answer of each row that has one, as a completion in the form that ``graders`` expect.

    ``answer`` is the name of the field with the gold answer. If it is None, this is the field that the
    graders read. Raises UserError if no row has a gold answer.
    """
    of_graders, before, after = _gold_form(graders)
    field = answer or of_graders
    found = [
        Answer(row, f"{before}{_text(value)}{after}")
        for row in rows
        if (value := row.fields.get(field)) is not None
    ]
    if not found:
        raise UserError(
            f"no row has the field {field!r} with a gold answer; name the field by --answer, or pass"
            " --completions FILE, or --row and --completion",
            INVALID,
        )
    return found


def _gold_form(graders: Sequence[Grader]) -> tuple[str, str, str]:
    """Return what a correct completion looks like: the name of the row's field with the gold answer, and the
    texts before and after the answer in the completion, such as ``\\boxed{`` and ``}``.

    The first of ``graders`` that compares a completion with a field decides. If none does, the field is
    ``GOLD_FIELD``, and both texts are empty.
    """
    for grader in graders:
        if grader.math is not None:
            return grader.math.field, "\\boxed{", "}"
        if (number := grader.numeric) is not None:
            boxed = number.extract == "boxed"
            before = "\\boxed{" if boxed else f"{number.marker} " if number.marker is not None else ""
            return number.field, before, "}" if boxed else ""
        if grader.exact_match is not None:
            return grader.exact_match.field, "", ""
        if (text := grader.text_similarity) is not None and text.reference is None:
            return text.field, "", ""
        if grader.string_check is not None and (found := _gold_of_template(grader.string_check)):
            return found
    return GOLD_FIELD, "", ""


def _gold_of_template(check: StringCheck) -> tuple[str, str, str] | None:
    """Return the field of the row that ``check.reference`` contains, and the texts before and after it. For
    the reference ``Answer: {answer}.`` these are ``answer``, ``Answer: `` and ``.``.

    Return None if the reference does not have exactly one field, or has only a part of a field, such as
    ``{answer.text}``. Also return None if the check's ``input`` is not the completion as it is, or if its
    operation is ``notEquals``.
    """
    if check.input != "{completion}" or check.operation == "notEquals":
        return None
    pieces = parts(check.reference)
    fields = [field for _, field in pieces if field is not None]
    if len(fields) != 1 or root_of(fields[0]) != fields[0]:
        return None
    return fields[0], pieces[0][0], "".join(literal for literal, _ in pieces[1:])


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def given(path: Path, rows: Sequence[RowLine]) -> list[Answer]:
    """Return the completions in a file of JSON lines. Raises UserError if a completion or its row is missing.

    Each line is a JSON text (the completion), or a JSON object with the field ``completion``. The n-th line
    answers the n-th row. An object with the field ``line`` answers the row in this line of the dataset
    instead. Blank lines do not count.
    """
    by_line = {row.line: row for row in rows}
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--completions: {path}: cannot be read: {error}", UNREADABLE) from error
    found = []
    for number, text in enumerate(lines, start=1):
        place = f"--completions: {path}: line {number}"
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place}: is not JSON: {error}", UNREADABLE) from error
        entry = value if isinstance(value, dict) else {"completion": value}
        if not isinstance(entry.get("completion"), str):
            raise UserError(f'{place}: is neither a text nor {{"line": 1, "completion": "…"}}', UNREADABLE)
        line = entry.get("line")
        if line is not None and (isinstance(line, bool) or not isinstance(line, int)):
            raise UserError(f"{place}: line is {json.dumps(line)}, not a whole number such as 1", UNREADABLE)
        row = by_line.get(line) if line is not None else _nth(rows, number)
        if row is None:
            wrong = f"no row in line {line}" if line is not None else f"only {len(rows)} rows"
            raise UserError(f"{place}: the dataset has {wrong}", INVALID)
        found.append(Answer(row, entry["completion"]))
    return found


def _nth(rows: Sequence[RowLine], number: int) -> RowLine | None:
    return rows[number - 1] if number <= len(rows) else None


def one(rows: Sequence[RowLine], line: int, completion: str) -> list[Answer]:
    """Return ``completion`` as the answer to the row in line ``line`` of the dataset.

    Raises UserError if there is no row in this line.
    """
    found = [Answer(row, completion) for row in rows if row.line == line]
    if not found:
        raise UserError(f"--row {line}: the dataset has no row in this line", INVALID)
    return found


def recorded(folder: RunFolder, step: int | None) -> list[Answer]:
    """Return the rollouts of a step of a run. If ``step`` is None, return those of the newest step.

    Raises:
        UserError: if there are no such rollouts.
    """
    steps = folder.steps_with_rollouts()
    if not steps or (step is not None and step not in steps):
        raise UserError(
            f"--from {folder.path}: has no rollouts{f' of step {step}' if step is not None else ''}",
            UNREADABLE,
        )
    number = steps[-1] if step is None else step
    return [
        Answer(RowLine(record.line, record.messages, record.fields), record.completion)
        for record in records.rollouts(folder.rollouts_of(number))
    ]


def scored(manifest: Manifest, overrides: Overrides, answers: Sequence[Answer]) -> "list[Score]":
    """Return the scores of completions. The graders of the job run as in a local run.

    If a grader fails, the completion gets no score from this grader. ``onError`` of the grader is ignored, so
    that every error is shown.

    Raises:
        UserError: if a grader cannot be loaded, or its libraries are missing.
    """
    try:
        from rft_graders.scorer import Scorer
        from rft_graders.types import GradeItem
    except ImportError as error:
        raise UserError(
            f"graders need the library {error.name}, which is not installed;"
            " pip install 'rft-operator[trainer]'",
            INVALID,
        ) from error
    graders = [grader.model_copy(update={"on_error": "drop"}) for grader in manifest.job.spec.graders]
    items = [GradeItem(each.row.messages, each.completion, each.row.fields) for each in answers]
    with tempfile.TemporaryDirectory(prefix="rft-grade-") as folder:
        code = located_graders(manifest, overrides.graders, Path(folder))
        for source in code.values():
            source.write()
        paths = {name: source.location for name, source in code.items()}
        try:
            with Scorer(graders, grader_code=paths, scratch_dir=folder) as scorer:
                scorer.ready()
                return list(scorer.score(items))
        except TrainerError as error:
            raise UserError(str(error), INVALID) from error


def not_full(answers: Sequence[Answer], scores: "Sequence[Score]") -> Iterator[tuple[Answer, str]]:
    """Yield a gold answer and a grader's name for each score below 1, and for each grader that failed.

    ``scores`` has the scores of ``answers``, in the same order.
    """
    for answer, score in zip(answers, scores, strict=True):
        for name in {**score.per_grader, **score.errors}:
            if name in score.errors or score.per_grader[name] < 1:
                yield answer, name
