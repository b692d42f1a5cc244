"""``rft run``: trains the model of an RFTJob on this machine, without a cluster."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from rft_api.job import RFTJob
from rft_api.lifecycle import Stop
from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_cli.local import contacts, records, snapshot
from rft_cli.local.contacts import Contact, Shell
from rft_cli.local.device import detect, unused_gpus
from rft_cli.local.inputs import Overrides, resolve
from rft_cli.local.lock import locked
from rft_cli.local.manifest import load, with_spec
from rft_cli.local.trainer import tail, train, trainer_command
from rft_cli.options import PushTo, SendTokenTo
from rft_cli.render.console import err, out, reports_errors
from rft_cli.render.curve import HeldOutReward, points_of_steps, print_curve
from rft_cli.render.endings import explain
from rft_cli.render.png import write_png
from rft_cli.render.progress import ProgressView
from rft_cli.render.results import print_results
from rft_run.exit_codes import ExitCode
from rft_run.folder import RunFolder

CLEAN = (ExitCode.OK, ExitCode.PREEMPTED)
LOG_TAIL = 15
"""Number of the last lines of the log that are printed if the trainer fails without a message."""


@reports_errors
def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Manifest with one RFTJob.")],
    output: Annotated[
        Path, typer.Option("--output", help="Folder of the run. A stopped run in it is resumed.")
    ],
    dataset: Annotated[Path | None, typer.Option(help="File with rows. It replaces spec.dataset.")] = None,
    evaluation_dataset: Annotated[
        Path | None, typer.Option(help="File with evaluation rows. It replaces spec.evaluation.dataset.")
    ] = None,
    grader: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="File with the code of a grader; may be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Sets spec.training.seed.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Sets spec.stop.maxSteps.")] = None,
    send_token_to: SendTokenTo = None,
    push_to: PushTo = None,
    public: Annotated[
        bool, typer.Option("--public", help="Allow that spec.output writes to a public repository.")
    ] = False,
) -> None:
    """Train the model of a job on this machine, without a cluster. The same command resumes a stopped run.

    The command first prints which servers the run contacts, and which of your tokens each server gets. A
    token goes only to its vendor's own server, or to a server that your settings or --send-token-to name. If
    another server would get a token, the run does not start. The run also does not start if spec.output names
    a destination that is missing in --push-to.
    """
    manifest = load(file)
    job = with_overrides(manifest.job, seed, max_steps)
    for field, value in (("suspend", job.spec.suspend), ("cancel", job.spec.cancel)):
        if value:
            raise UserError(f"spec.{field}: is true, so there is nothing to run; set it to false", INVALID)
    folder = RunFolder(output.resolve())
    overrides = Overrides(dataset, evaluation_dataset, by_name(grader or []))
    inputs = resolve(manifest, overrides, folder.inputs)
    contacted = contacts.contacts(job.spec, inputs, Shell.of_this_process())
    allowed = contacts.permissions(send_token_to or [], push_to or [], public=public)
    contacts.refuse_untrusted(contacted, allowed)
    command = trainer_command()
    with locked(folder):
        before = snapshot.previous(folder.path)
        config = snapshot.build(job, inputs, detect(job.spec.resources), folder.path, before)
        if before is not None:
            snapshot.refuse_changes(folder.path, before, config, inputs)
        path = snapshot.save(folder.path, config, inputs)
        verb = "starting" if before is None else "resuming"
        out().print(f"{verb} {job.metadata.name} on {config.device} in {output}", markup=False)
        if config.device == "cpu" and (reason := unused_gpus(job.spec.resources)) is not None:
            out().print(reason, markup=False)
        out().print("\n".join(announced(contacted, job)), markup=False)
        exit_code = _train([*command, "--config", str(path)], folder)
    raise typer.Exit(exit_code)


def with_overrides(job: RFTJob, seed: int | None, max_steps: int | None) -> RFTJob:
    """Return a copy of the job with new values of ``spec.training.seed`` and ``spec.stop.maxSteps``.

    A parameter that is None does not change its field.

    Raises:
        UserError: if a value is out of range.
    """
    spec = job.spec.dump()
    if seed is not None:
        spec["training"]["seed"] = seed
    if max_steps is not None:
        spec["stop"] = {**(job.spec.stop or Stop()).dump(), "maxSteps": max_steps}
    return with_spec(job, spec)


def announced(contacted: list[Contact], job: RFTJob) -> list[str]:
    """Return lines for the user that say which servers a run contacts, and which credentials each gets.

    The lines also name the graders of the job whose Python code runs on this machine.
    """
    lines = [f"contacts {contact}" for contact in contacted] or ["contacts no server"]
    code = [grader.name for grader in job.spec.scored_by if grader.python is not None]
    if code:
        lines.append(
            f"runs the manifest's code with your rights, so it can read your files: grader {', '.join(code)}"
        )
    return lines


def _train(command: list[str], folder: RunFolder) -> int:
    """Run the trainer until it ends, show its progress and results, and return its exit code.

    ``command`` starts the trainer. The trainer's log is written into ``folder``, the folder of the run.
    """
    with ProgressView(out()) as view:
        exit_code, end = train(command, folder.log, view.show, view.tick)
    sentence = ": ".join(part for part in explain(exit_code, folder) if part)
    if exit_code in CLEAN:
        reason = f" ({end.reason})" if exit_code == ExitCode.OK and end is not None and end.reason else ""
        out().print(sentence + reason, markup=False)
        _summarize(folder)
    else:
        said = end.message if end is not None else ""
        err().print(said or "\n".join(f"  {line}" for line in tail(folder.log, LOG_TAIL)), markup=False)
        err().print(f"error: exit code {exit_code}: {sentence} ({folder.log})", markup=False)
    return exit_code


def _summarize(folder: RunFolder) -> None:
    """Print the reward curve and the results of the run in ``folder``, if there are any.

    Also draw the curve into an image file in this folder.
    """
    steps, status = records.steps(folder.metrics), records.status(folder.status)
    points = points_of_steps(steps)
    if points:
        out().print()
        print_curve(out(), points)
        with suppress(OSError):
            folder.curve.unlink()  # a link would lead the image to another file
        config, reward = snapshot.previous(folder.path), status.evaluation and status.evaluation.reward
        name = config.job.name if config is not None else folder.path.name
        write_png(steps, folder.curve, name, HeldOutReward(reward.base, reward.tuned) if reward else None)
    print_results(out(), status, folder.curve if points else None)


def by_name(pairs: list[str]) -> dict[str, Path]:
    """Parse the values ``NAME=FILE`` of the option ``--grader``. Return the file of each grader by its name.

    Raises UserError if a value does not have this form.
    """
    found = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (name and equals and path):
            raise UserError(f"--grader {pair}: must be NAME=FILE", UNREADABLE)
        found[name] = Path(path)
    return found
