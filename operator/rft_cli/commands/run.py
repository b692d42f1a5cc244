"""``rft run``: runs an RFTJob's manifest on this machine, without a cluster."""

import contextlib
import fcntl
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from rft_api.job import RFTJob
from rft_api.lifecycle import Stop
from rft_api.problems import from_validation_error
from rft_cli.commands.training import train
from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_cli.local import snapshot
from rft_cli.local.device import detect
from rft_cli.local.inputs import Overrides, resolve
from rft_cli.local.manifest import load
from rft_cli.render.console import out, reports_errors

LOCK_FILE = ".rft.lock"


@reports_errors
def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Manifest with one RFTJob.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The run's folder; an old one resumes.")],
    dataset: Annotated[Path | None, typer.Option(help="Rows in place of the manifest's.")] = None,
    evaluation_dataset: Annotated[Path | None, typer.Option(help="The same for the evaluation.")] = None,
    grader: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="Code of a python grader; may be repeated.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Sets spec.training.seed.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Sets spec.stop.maxSteps.")] = None,
) -> None:
    """Train here, without cluster or GPU. The same command again resumes."""
    manifest = load(file)
    job = with_overrides(manifest.job, seed, max_steps)
    for field, value in (("suspend", job.spec.suspend), ("cancel", job.spec.cancel)):
        if value:
            raise UserError(f"spec.{field}: is true, so there is nothing to run; set it to false", INVALID)
    folder = output.resolve()
    overrides = Overrides(dataset, evaluation_dataset, _by_name(grader or []))
    inputs = resolve(manifest, overrides, folder / snapshot.INPUTS_FOLDER)
    command = trainer_command()
    with _locked(folder):
        before = snapshot.previous(folder)
        config = snapshot.build(job, inputs, detect(job.spec.resources), folder, before)
        if before is not None:
            snapshot.refuse_changes(folder, before, config, inputs)
        path = snapshot.save(folder, config, inputs)
        verb = "starting" if before is None else "resuming"
        out().print(f"{verb} {job.metadata.name} on {config.device} in {output}", markup=False)
        exit_code = train([*command, "--config", str(path)], folder)
    raise typer.Exit(exit_code)


def with_overrides(job: RFTJob, seed: int | None, max_steps: int | None) -> RFTJob:
    """Return the job with the values of the options in its spec, validated.

    Raises:
        UserError: a value is out of range.
    """
    spec = job.spec.dump()
    if seed is not None:
        spec["training"]["seed"] = seed
    if max_steps is not None:
        spec["stop"] = {**(job.spec.stop or Stop()).dump(), "maxSteps": max_steps}
    try:
        return job.model_copy(update={"spec": type(job.spec).model_validate(spec)})
    except ValidationError as error:
        problems = "; ".join(f"spec.{problem}" for problem in from_validation_error(error, type(job.spec)))
        raise UserError(problems, INVALID) from error


def trainer_command() -> list[str]:
    """Return the command that starts the trainer.

    Raises:
        UserError: the trainer is not installed beside the CLI.
    """
    if importlib.util.find_spec("rft_trainer") is None:
        raise UserError("the trainer is not installed here: pip install 'rft-operator[trainer]'", UNREADABLE)
    return [sys.executable, "-m", "rft_trainer"]


def _by_name(pairs: list[str]) -> dict[str, Path]:
    found = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (name and equals and path):
            raise UserError(f"--grader {pair}: must be NAME=FILE", UNREADABLE)
        found[name] = Path(path)
    return found


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder, so that no second command trains into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK_FILE).open("w")
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be written: {error.strerror}", UNREADABLE) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"--output {folder}: another rft run is training there; wait for it or use another folder"
            ) from None
        yield
