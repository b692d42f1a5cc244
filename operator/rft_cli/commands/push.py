"""``rft push``: copies an adapter or a merged model to a repository of the hub, or to a bucket."""

import json
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from rft_cli.commands.export import (
    ADAPTER_CONFIG,
    Dtype,
    MergeBase,
    MergedDtype,
    chosen_of,
    refuse_unused,
    write_export,
)
from rft_cli.commands.source import ended_by_signals
from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_cli.local.trainer import trainer_command
from rft_cli.options import BestCheckpoint, CheckpointStep, Context, Namespace, TrainerImage
from rft_cli.render.console import err, out, reports_errors
from rft_run import run_files
from rft_run.card import peft_lines
from rft_run.destination import MAIN, Destination, HubDestination, read_destination


@reports_errors
def push(
    source: Annotated[
        str, typer.Argument(metavar="NAME|DIR", help="A job, a run's folder, or an adapter's folder.")
    ],
    destination: Annotated[
        str,
        typer.Argument(metavar="DESTINATION", help="hf://OWNER/NAME[@REVISION] or s3://BUCKET/PREFIX."),
    ],
    public: Annotated[
        bool,
        typer.Option(
            "--public/--private", help="Create a public repository, or push to one that is already public."
        ),
    ] = False,
    merge: Annotated[bool, typer.Option("--merge", help="Push a whole model: base plus adapter.")] = False,
    step: CheckpointStep = None,
    best: BestCheckpoint = False,
    base: MergeBase = None,
    dtype: MergedDtype = Dtype.AUTO,
    image: TrainerImage = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Copy the final adapter, or with --merge a whole model, to the Hugging Face hub or to a bucket of S3.

    The files are the same as those of rft export. The command also prints how to load them.

    If the repository does not exist, it is created as a private one. Tokens and keys come from the
    environment or from your login, never from the command line: HF_TOKEN or hf auth login, and AWS_PROFILE or
    AWS_ACCESS_KEY_ID. If you repeat the command, it sends only files that differ.

    Exit code 1: there is no such job or adapter, or the destination refuses the files; 2: a folder cannot be
    read.
    """
    refuse_unused(base, merge)
    to = _destination(destination, public)
    trainer = trainer_command()
    with (
        chosen_of(source, step, best, context, namespace, image) as (folder, chosen),
        tempfile.TemporaryDirectory(prefix="rft-") as name,
        ended_by_signals(),
    ):
        written = Path(name)
        try:
            write_export(folder, chosen, written, base=base, merge=merge, dtype=dtype)
        except OSError as error:
            raise UserError(f"{name}: cannot be written: {error}", UNREADABLE) from error
        done = _pushed(trainer[0], written, to)
        lines = list(_loading(to, written, merged=merge))
    what = "merged model" if merge else "adapter"
    for other in done["others"]:
        said = f"already at the destination and not part of this push: {other}"
        err().print(said, markup=False, soft_wrap=True)
    counted = f"{len(done['sent'])} files sent, {len(done['kept'])} were there already"
    out().print(f"{what} of {chosen.what}: {done['address']} ({counted})", markup=False, soft_wrap=True)
    for line in lines:
        out().print(line, markup=False, highlight=False, soft_wrap=True)


def _destination(text: str, public: bool) -> Destination:
    try:
        to = read_destination(text, private=not public)
    except ValueError as error:
        raise UserError(f"DESTINATION: {error}", INVALID) from error
    if public and not isinstance(to, HubDestination):
        raise UserError(
            f"--public: is only for hf://, and {to} is a bucket, which has its own access rules; leave"
            " --public out",
            INVALID,
        )
    return to


def _pushed(python: str, folder: Path, to: Destination) -> dict[str, Any]:
    """Copy the files of a folder to the hub or to a bucket, by ``rft_trainer.push`` in a child process.

    ``python`` is the path of a Python interpreter with the trainer's packages. Among them are the libraries
    for the hub and for buckets, which ``rft`` itself does not load.

    Return the JSON object that the child process prints:

    - ``address``: the address of the pushed files
    - ``sent``: the names of the files that were sent
    - ``kept``: the names of the files that the destination had already
    - ``others``: the names of files at the destination that ``folder`` does not have

    Raises UserError if the push fails.
    """
    command = [python, "-P", "-m", "rft_trainer.push", "--folder", str(folder), "--to", str(to)]
    if isinstance(to, HubDestination) and not to.private:
        command.append("--public")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"{to}: the push ended with exit code {done.returncode}"]
        raise UserError(said[-1], INVALID)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _loading(to: Destination, folder: Path, *, merged: bool) -> Iterator[str]:
    """Yield lines of commands or code with which the user can load the pushed files from ``to``.

    ``folder`` has a copy of the pushed files. They are a merged model if ``merged`` is true, else an adapter.
    """
    yield ""
    if isinstance(to, HubDestination):
        place, branch = to.repository, (None if to.revision == MAIN else to.revision)
    else:
        place, branch = "ADAPTER", None
        yield f"aws s3 cp --recursive {shlex.quote(str(to))} {place}"
    if merged:
        option = f" --revision {branch}" if branch else ""
        yield f"vllm serve {place}{option}"
        return
    config = run_files.json_of(folder / ADAPTER_CONFIG)
    yield from peft_lines(config["base_model_name_or_path"], config.get("revision"), place, branch)
