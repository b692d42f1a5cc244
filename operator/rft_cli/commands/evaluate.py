"""``rft evaluate``: scores the base model or a trained adapter on a job's held-out rows, without training."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from rft_api.controls import as_json
from rft_cli.commands.export import choose
from rft_cli.commands.run import LOG_TAIL, announced, by_name
from rft_cli.commands.source import ended_by_signals
from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_cli.local import contacts, records, scoring
from rft_cli.local.contacts import Shell
from rft_cli.local.manifest import load
from rft_cli.local.process import INTERRUPTED
from rft_cli.local.scoring import EvaluationTask, Given, PolicyScores, TunedAdapter
from rft_cli.local.snapshot import previous
from rft_cli.local.trainer import tail, train, trainer_command
from rft_cli.options import SendTokenTo
from rft_cli.render.console import err, out, reports_errors, write
from rft_cli.render.endings import ENDINGS
from rft_cli.render.evaluation import evaluation_table, verdict
from rft_cli.render.progress import ProgressView
from rft_cli.render.scores import scores_table, truncated_line
from rft_run.config import RunConfig
from rft_run.exit_codes import ExitCode
from rft_run.folder import RunFolder


class EvaluateFormat(StrEnum):
    """The values of the option ``-o`` of ``rft evaluate``."""

    TEXT = "text"
    JSON = "json"


@reports_errors
def evaluate(
    source: Annotated[
        Path, typer.Argument(metavar="FILE|DIR", help="Manifest with one RFTJob, or a run's folder.")
    ],
    model: Annotated[
        str | None, typer.Option(help="Base model, a folder or hub id. It replaces spec.model.name.")
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With a manifest: evaluate this adapter.")
    ] = None,
    step: Annotated[
        int | None, typer.Option(min=1, help="With a run's folder: evaluate the checkpoint of this step.")
    ] = None,
    best: Annotated[
        bool,
        typer.Option(
            "--best", help="With a run's folder: evaluate the checkpoint with the highest held-out reward."
        ),
    ] = False,
    rows: Annotated[
        Path | None, typer.Option(help="File with rows to evaluate, all of them, in place of held-out rows.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="File from which rows are held out. It replaces spec.dataset.")
    ] = None,
    grader: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="File with the code of a grader; may be repeated."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of rows to evaluate.")] = None,
    samples: Annotated[
        int | None, typer.Option(help="Completions of each row. Sets spec.evaluation.samples.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder to make, for scores and rollouts.")
    ] = None,
    format_: Annotated[
        EvaluateFormat, typer.Option("--format", "-o", help="text or json.")
    ] = EvaluateFormat.TEXT,
    send_token_to: SendTokenTo = None,
) -> None:
    """Score a base model or a trained adapter on a job's held-out rows, by the job's graders.

    Nothing is trained. For a manifest, the base model is scored, or with --adapter the base model with this
    adapter. For a run's folder, the model before training and the trained model are compared on the same
    rows.

    The sampler, the sampling settings and the graders are the same as in a run. Without --output, all files
    are removed at the end.

    Exit code 1: an input is wrong, or the evaluation failed; 2: a file cannot be read. All other exit codes
    are those of rft run.
    """
    given = Given(model, adapter, samples, dataset, rows, by_name(grader or []))
    try:
        with ended_by_signals(), _folder(output) as folder:
            evaluation, tuned = _asked(source, given, step, best, folder)
            contacted = contacts.contacts(evaluation.job.spec, evaluation.inputs, Shell.of_this_process())
            contacts.refuse_untrusted(contacted, contacts.permissions(send_token_to or []))
            command = trainer_command()
            config, path = scoring.prepared(evaluation, folder)
            name = evaluation.job.metadata.name
            err().print(f"evaluating {name} on {config.device}", markup=False)
            err().print("\n".join(announced(contacted, evaluation.job)), markup=False)
            _run([*command, "--config", str(path), "--evaluate", *_options(tuned, limit)], RunFolder(folder))
            _show(RunFolder(folder), config, tuned, format_)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if output is not None:
        err().print(f"written to {output}", markup=False)


def _asked(
    source: Path, given: Given, step: int | None, best: bool, folder: Path
) -> tuple[EvaluationTask, TunedAdapter | None]:
    """Return the evaluation that the command line asks for, and the adapter that training has made.

    The adapter is None if ``source`` is a manifest, because then only one policy is evaluated.

    - ``source``: the path of a manifest, or of a run's folder
    - ``given``, ``step``, ``best``: the values of the options
    - ``folder``: the folder of the evaluation; files from ConfigMaps get paths in this folder

    Raises:
        UserError: if options exclude each other, or an input cannot be used.
    """
    if not source.is_dir():
        if step is not None or best:
            name = "--best" if best else f"--step {step}"
            raise UserError(
                f"{name}: chooses a checkpoint of a run, and {source} is no folder; name a run's folder, or"
                f" leave {name} out",
                INVALID,
            )
        if given.adapter is not None and not given.adapter.is_dir():
            raise UserError(f"--adapter: {given.adapter} is not a folder; name one that exists", UNREADABLE)
        return scoring.of_manifest(load(source), given, RunFolder(folder).inputs), None
    if given.adapter is not None:
        raise UserError(
            f"--adapter {given.adapter}: {source} is a run's folder, whose own adapter is evaluated; choose"
            " it with --step or --best, or name a manifest in place of the folder",
            INVALID,
        )
    config = previous(source)
    if config is None:
        raise UserError(
            f"{source}: has no run.json, so its job is not known; name the folder of a run or of a"
            " download, or a manifest with --adapter",
            UNREADABLE,
        )
    chosen, run = choose(source, step, best), RunFolder(source)
    # Step 0 stands for the policy before training, so an adapter whose step is not known gets step 1.
    step_of_adapter = chosen.step or records.last_step(records.steps(run.metrics)) or 1
    tuned = TunedAdapter(chosen.folder.resolve(), step_of_adapter)
    return scoring.of_run(run, config, tuned.folder, given), tuned


def _options(tuned: TunedAdapter | None, limit: int | None) -> list[str]:
    """Return the trainer's command-line options for an evaluation.

    - ``tuned``: the trained adapter to evaluate, with its step; None: there is no such adapter
    - ``limit``: the maximum number of rows; None: all rows
    """
    options = ["--adapter", str(tuned.folder), "--step", str(tuned.step)] if tuned is not None else []
    return [*options, "--limit", str(limit)] if limit is not None else options


@contextmanager
def _folder(output: Path | None) -> Iterator[Path]:
    """Create the folder for the files of an evaluation, and yield its path.

    It is the folder ``output``, or a temporary folder if ``output`` is None. The temporary folder is removed
    at the end. The folder ``output`` is removed only if the ``with`` block raises an exception.

    Raises:
        UserError: if ``output`` exists already, or cannot be written.
    """
    if output is None:
        with tempfile.TemporaryDirectory(prefix="rft-evaluate-") as temporary:
            yield Path(temporary).resolve()
        return
    target = output.resolve()
    try:
        target.mkdir(parents=True)
    except FileExistsError as error:
        raise UserError(f"--output {output}: exists already; name another folder") from error
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written: {error.strerror}", UNREADABLE) from error
    try:
        yield target
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _run(command: Sequence[str], folder: RunFolder) -> None:
    """Run the trainer until the evaluation has ended, and show its progress.

    ``command`` starts the trainer, which makes the evaluation. Its log is written into ``folder``. If the
    evaluation fails, print why, and raise typer.Exit with the trainer's exit code.
    """
    with ProgressView(err(), "the sampler to end") as view:
        exit_code, end = train(command, folder.log, view.show, view.tick)
    if exit_code == ExitCode.OK:
        return
    known = ENDINGS.get(exit_code)
    what = known.what if known is not None else "the trainer failed"
    if exit_code in (ExitCode.PREEMPTED, INTERRUPTED):
        err().print(f"{what}: nothing was evaluated", markup=False)
    else:
        said = end.message if end is not None else ""
        err().print(said or "\n".join(f"  {line}" for line in tail(folder.log, LOG_TAIL)), markup=False)
        err().print(f"error: exit code {exit_code}: {what}", markup=False)
    raise typer.Exit(exit_code)


def _show(folder: RunFolder, config: RunConfig, tuned: TunedAdapter | None, format_: EvaluateFormat) -> None:
    """Print the results of an evaluation: the scores of each policy, and the comparison of two policies.

    - ``folder``: the folder of the evaluation, with the trainer's results
    - ``tuned``: the trained adapter; None: only one policy was evaluated, and there is no comparison
    """
    found = scoring.results(folder, config.effective.seed)
    compared = records.status(folder.status).evaluation if tuned is not None else None
    if format_ is EvaluateFormat.JSON:
        comparison = compared.dump() if compared is not None else None
        write(as_json(_body(config, found, tuned, comparison)))
        return
    for scores in found:
        out().print(scores_table(scores))
        out().print(truncated_line(scores), markup=False)
        out().print()
    if compared is not None:
        out().print(evaluation_table(compared))
        out().print(verdict(compared), markup=False)


def _body(
    config: RunConfig,
    found: Sequence[PolicyScores],
    tuned: TunedAdapter | None,
    comparison: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return the results of an evaluation as a JSON object, for ``-o json``.

    - ``found``: the scores of each policy that was evaluated
    - ``tuned``: the trained adapter; None: only one policy was evaluated
    - ``comparison``: the comparison of two policies in the form of ``status.evaluation``, or None
    """
    model = config.spec.model
    start = model.adapter.path if model.adapter is not None else None
    of_policies = [
        {**scores.as_object(), "adapter": str(tuned.folder) if tuned is not None and scores.step else start}
        for scores in found
    ]
    body = {"model": model.name, "seed": config.effective.seed, "policies": of_policies}
    return body if comparison is None else {**body, "comparison": comparison}
