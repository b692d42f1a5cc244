"""``rft import``: converts a job or a grader of OpenAI, Fireworks or TRL to a manifest of an RFTJob."""

from pathlib import Path
from typing import Annotated

import typer

from rft_api.dumper import dump
from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_cli.importing import reading
from rft_cli.importing.result import Draft, ImportProblem, Options
from rft_cli.local.own_files import model_name
from rft_cli.new_files import write_new
from rft_cli.render.console import err, out, reports_errors

MANIFEST = "job.yaml"


@reports_errors
def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="File with JSON, a command line or a Python script.")
    ],
    output: Annotated[Path, typer.Option("--output", help="Folder for the manifest and its files.")],
    model: Annotated[str | None, typer.Option(help="Model to train, in place of the one in FILE.")] = None,
    rows: Annotated[Path | None, typer.Option(help="File with the training rows.")] = None,
    evaluation_rows: Annotated[Path | None, typer.Option(help="File with the evaluation's rows.")] = None,
    evaluator: Annotated[Path | None, typer.Option(help="Python file of a Fireworks evaluator.")] = None,
    judge_url: Annotated[
        str, typer.Option(help="OpenAI-compatible endpoint of judge models.")
    ] = "https://api.openai.com/v1",
    judge_model: Annotated[str | None, typer.Option(help="Judge model, in place of the one in FILE.")] = None,
) -> None:
    """Make an RFTJob from a job or grader of OpenAI or Fireworks, or from a script with TRL's GRPO.

    The command writes job.yaml and the graders' code into a new folder. It runs no code of the file and
    contacts no server. It prints each field that was changed or left out, and what is done instead.

    Exit code 1: the file cannot be expressed as an RFTJob; 2: the file cannot be read.
    """
    options = Options(
        model_name(model) if model is not None else None,
        _path(rows, "--rows"),
        _path(evaluation_rows, "--evaluation-rows"),
        str(evaluator) if evaluator is not None else None,
        judge_url,
        judge_model,
        str(file.resolve().parent),
    )
    try:
        text = file.read_text(encoding="utf-8")
        draft = reading.read(text, options)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {error}", UNREADABLE) from error
    except ImportProblem as error:
        raise UserError(f"{file}: {error}", INVALID) from error
    _write(draft, output)
    for line in reading.summary(draft):
        err().print(line)
    if problems := reading.problems(draft):
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(f"{output / MANIFEST}: was written, but is not valid:\n{lines}", INVALID)
    out().print(f"written to {output / MANIFEST}; next: rft grade {output / MANIFEST}, then rft run")


def _path(path: Path | None, option: str) -> str | None:
    """Return the absolute path of the file that an option names, or None if the option is absent.

    ``option`` is the name of the option, for messages. Raises UserError if there is no such file.
    """
    if path is None:
        return None
    found = path.expanduser().resolve()
    if not found.is_file():
        raise UserError(f"{option}: {path} is not a file; name one that exists", UNREADABLE)
    return str(found)


def _write(draft: Draft, folder: Path) -> None:
    """Write the manifest of an imported job, and the files that it uses, into ``folder``.

    Raises UserError, and writes nothing, if a file of the same name exists with other content.
    """
    texts = {**draft.files, MANIFEST: dump(draft.manifest())}
    write_new({folder / name: text for name, text in texts.items()})
