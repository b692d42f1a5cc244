"""``rft new``: writes the manifest of an RFTJob that trains on the rows in a file."""

from enum import StrEnum
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from rft_api import API_VERSION, KIND
from rft_api.ahead import model_problem
from rft_api.dumper import dump
from rft_api.forms import LABEL
from rft_api.graders import DEFAULT_FUNCTION
from rft_api.job import MAX_NAME_LENGTH
from rft_api.validation import check
from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_cli.local.grading import GOLD_FIELD
from rft_cli.local.own_files import model_name
from rft_cli.local.survey import Survey, answer_field, are_numbers, dataset, described, surveyed
from rft_cli.new_files import write_new
from rft_cli.render.console import asked, err, out, reports_errors
from rft_graders.ahead import likely_grader
from rft_planner.steps import MIN_HELD_OUT

SMALL_MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
MAX_TOKENS = 512
CODE = """\
def grade(completion, row):
    \"\"\"Return the score of a completion, from 0 to 1. ``row`` has the fields of the prompt's row.\"\"\"
    return 1.0 if str(row[{field!r}]) in completion else 0.0
"""


class FieldGrader(StrEnum):
    """The values of the option ``--grader`` of ``rft new``: kinds of graders.

    Graders of these kinds need only one setting: the name of the rows' field with the right answer. For
    ``python`` the command also writes the code.
    """

    EXACT_MATCH = "exactMatch"
    NUMERIC = "numeric"
    MATH = "math"
    TEXT_SIMILARITY = "textSimilarity"
    PYTHON = "python"


@reports_errors
def new(
    output: Annotated[Path, typer.Argument(metavar="FILE", help="Manifest to write.")] = Path("job.yaml"),
    rows: Annotated[Path | None, typer.Option(help="JSON lines or CSV with the rows.")] = None,
    model: Annotated[str | None, typer.Option(help="Hub id, or path, of the model to train.")] = None,
    grader: Annotated[FieldGrader | None, typer.Option(help="Kind of the grader.")] = None,
    answer: Annotated[str | None, typer.Option(help="Field with the right answer.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Column with the prompt.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the job. If absent: FILE's name.")] = None,
    max_tokens: Annotated[int, typer.Option(min=16, max=16384, help="Sets maxTokens.")] = MAX_TOKENS,
) -> None:
    """Write a manifest for your rows, and print what the rows contain.

    If an option is absent, its value is found in the rows, or you are asked for it on the terminal. No file
    is overwritten.

    The command prints the columns and the lengths in tokens, which are estimated from characters. It also
    counts the distinct prompts, and the answers that are longer than maxTokens.

    Exit code 1: a value is missing or wrong; 2: the rows cannot be read.
    """
    if output.exists():
        raise UserError(f"{output}: exists; name a new file, or move this one away", UNREADABLE)
    rows = rows or Path(asked("File with the rows", "--rows", None))
    found = surveyed(rows.expanduser(), prompt)
    model = model or asked("Model to train, by its hub id", "--model", SMALL_MODEL)
    field = _answer(found, answer)
    kind = grader or _kind(asked("Kind of the grader", "--grader", _likely(found, field)))
    files: dict[Path, str] = {}
    settings: dict[str, Any] = {"field": field}
    if kind is FieldGrader.PYTHON:
        code = output.with_name("reward.py")
        if not code.exists():
            files[code] = CODE.format(field=field)
        settings = code_settings(code)
    body = manifest(_name(name, output), _model(model), found, _uri(rows, output), kind, settings, max_tokens)
    files = {output: dump(body), **files}
    write_new(files)
    out().print("\n".join([*described(found, field, max_tokens), f"written to {', '.join(map(str, files))}"]))
    if found.prompts < 2 * MIN_HELD_OUT:
        err().print(
            f"warning: {found.prompts} distinct prompts are fewer than {2 * MIN_HELD_OUT}, so"
            " evaluation.fraction is 0: base and tuned model are not compared"
        )
    # A python grader can read any field, so rft grade cannot know the one with the gold answer.
    asks = kind is FieldGrader.PYTHON and field != GOLD_FIELD
    graded = f"rft grade {output}{f' --answer {quote(field)}' if asks else ''}"
    out().print(f"next: {graded}, then rft run {output} --output runs/{body['metadata']['name']}")


def _answer(found: Survey, answer: str | None) -> str:
    names = [name for name, values in found.answers.items() if len(values) == found.rows]
    if answer is not None:
        if answer not in names:
            allowed = ", ".join(names) or "none"
            said = f"--answer: {answer!r} is no field with a text or number in each row"
            raise UserError(f"{said}; such fields are {allowed}", INVALID)
        return answer
    likely = answer_field(found)
    if likely is None and not names:
        raise UserError(
            "--rows: no field has a text or number in each row, so there is no right answer to compare with;"
            ' add one, such as "answer", or write a python or model grader by hand',
            INVALID,
        )
    return likely or _answer(
        found, asked(f"Field with the right answer ({', '.join(names)})", "--answer", None)
    )


def _kind(text: str) -> FieldGrader:
    try:
        return FieldGrader(text)
    except ValueError:
        raise UserError(
            f"--grader: {text!r} is no kind of grader; name one of {', '.join(FieldGrader)}", INVALID
        ) from None


def _likely(found: Survey, field: str) -> str:
    """Return the kind of grader that fits the right answers in the rows.

    It is ``numeric`` for numbers, ``exactMatch`` for texts of at most 16 tokens, and ``textSimilarity`` for
    longer texts.

    - ``found``: the values that were found in the rows
    - ``field``: the field of the rows with the right answers
    """
    if are_numbers(found.answers[field]):
        return FieldGrader.NUMERIC
    return FieldGrader.EXACT_MATCH if max(found.lengths(field)) <= 16 else FieldGrader.TEXT_SIMILARITY


def _model(name: str) -> str:
    name = model_name(name)
    if said := model_problem(name):
        raise UserError(f"--model: {said}", INVALID)
    return name


def _name(given: str | None, output: Path) -> str:
    name = given or output.stem
    if LABEL.has(name) and len(name) <= MAX_NAME_LENGTH:
        return name
    proposal = LABEL.proposal(name, MAX_NAME_LENGTH)
    if given is None and proposal:
        return proposal
    raise UserError(f"--name: {name!r} is not {LABEL.words}; write {proposal or 'my-job'}", INVALID)


def _uri(rows: Path, output: Path) -> str:
    """Return the path to write into the manifest for ``rows``, the file with the rows.

    The path is relative if the file is in or below the manifest's folder, else it is absolute. ``output`` is
    the path of the manifest.
    """
    path, folder = rows.expanduser().resolve(), output.resolve().parent
    return f"./{path.relative_to(folder)}" if path.is_relative_to(folder) else str(path)


def code_settings(code: Path) -> dict[str, str]:
    """Return the settings of a python grader for the manifest: ``file``, and if needed ``function``.

    ``code`` is the file with the grader's code. ``function`` is needed if this file exists, and the function
    in it that is probably the grader has another name than ``grade``. Raises UserError if the file cannot be
    read.
    """
    settings = {"file": code.name}
    try:
        function = likely_grader(code.read_text(encoding="utf-8")) if code.exists() else None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{code}: cannot be read: {error}", UNREADABLE) from error
    if function is not None and function != DEFAULT_FUNCTION:
        settings["function"] = function
    return settings


def manifest(
    name: str,
    model: str,
    found: Survey,
    uri: str,
    kind: FieldGrader,
    settings: dict[str, Any],
    max_tokens: int,
) -> dict[str, Any]:
    """Return the manifest of an RFTJob with one grader, as a JSON object.

    - ``name``, ``model``: the name of the job, and the hub id or path of its model
    - ``found``: the columns and the number of prompts that were found in the rows
    - ``uri``: the path of the file with the rows
    - ``kind``, ``settings``: the kind of the grader, and its settings in the manifest
    - ``max_tokens``: the maximum length of a completion, in tokens

    Raises UserError if the manifest is not valid.
    """
    spec: dict[str, Any] = {
        "model": {"name": model},
        "dataset": dataset(found, uri),
        "graders": [{"name": "correct", kind.value: settings}],
        "sampling": {"maxTokens": max_tokens},
    }
    if found.prompts < 2 * MIN_HELD_OUT:
        spec["evaluation"] = {"fraction": 0}
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}
    # ``file`` is a field of rft only, so the check sees inline code in its place.
    in_api = {("inline" if key == "file" else key): value for key, value in settings.items()}
    graders = [{"name": "correct", kind.value: in_api}]
    _, problems = check({**body, "spec": {**spec, "graders": graders, "storage": {"ephemeral": {}}}})
    if problems:
        raise UserError("; ".join(map(str, problems)), INVALID)
    return body
