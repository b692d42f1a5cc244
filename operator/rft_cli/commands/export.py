"""``rft export``: copies an adapter from a run's folder, or merges it into the base model."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from rft_cli.commands.source import Fetch, run_folder
from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_cli.local import records
from rft_cli.local.snapshot import previous
from rft_cli.local.trainer import trainer_command
from rft_cli.options import BestCheckpoint, CheckpointStep, Context, Namespace, TrainerImage
from rft_cli.render.console import err, out, reports_errors
from rft_run import atomic, run_files
from rft_run.card import Card, licence_said, named, render
from rft_run.checkpoint import adapter_problem
from rft_run.config import RunConfig
from rft_run.folder import ADAPTER, RunFolder, adapter_of, card_of, state_of, steps_of

ADAPTER_CONFIG = "adapter_config.json"
_FILES = ("metrics.jsonl", f"{ADAPTER}/*", f"checkpoints/*/{ADAPTER}/*", "checkpoints/*/state.json")
"""``fnmatch`` patterns of the files that an export may need, relative to the run's folder."""


class Dtype(StrEnum):
    """The values of the option ``--dtype``: number formats of a merged model. ``auto``: the base model's."""

    AUTO = "auto"
    FLOAT32 = "float32"


MergeBase = Annotated[
    str | None, typer.Option("--base", help="Base model for --merge. If absent: the run's base model.")
]
MergedDtype = Annotated[
    Dtype, typer.Option("--dtype", help="Number format of the merged model. auto: the base model's.")
]


class Chosen(NamedTuple):
    """The adapter that a command uses, such as that of the last step or of a checkpoint.

    - ``folder``: the folder with the adapter's files
    - ``what``: a description of the adapter for messages, such as ``step 40``
    - ``step``: the step of the checkpoint that has the adapter, or None if it is not in a checkpoint
    """

    folder: Path
    what: str
    step: int | None = None


@reports_errors
def export(
    source: Annotated[
        str, typer.Argument(metavar="NAME|DIR", help="A job, a run's folder, or an adapter's folder.")
    ],
    output: Annotated[Path, typer.Option("--output", help="Folder to make.")],
    merge: Annotated[
        bool, typer.Option("--merge", help="Write a whole model: base and adapter merged.")
    ] = False,
    step: CheckpointStep = None,
    best: BestCheckpoint = False,
    base: MergeBase = None,
    dtype: MergedDtype = Dtype.AUTO,
    force: Annotated[bool, typer.Option("--force", help="Replace what is at --output.")] = False,
    image: TrainerImage = None,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Copy the final adapter for PEFT, or with --merge write a whole model for vLLM.

    The adapter of a job in the cluster is read from its volume, as rft download does.

    Exit code 1: there is no such job or adapter, or the adapter does not fit the base model; 2: a folder
    cannot be read or written.
    """
    refuse_unused(base, merge)
    with (
        chosen_of(source, step, best, context, namespace, image) as (folder, chosen),
        _placed(output, force) as unfinished,
    ):
        write_export(folder, chosen, unfinished, base=base, merge=merge, dtype=dtype)
    out().print(f"{'merged model' if merge else 'adapter'} of {chosen.what}: {output}", markup=False)


def refuse_unused(base: str | None, merge: bool) -> None:
    """Raise UserError if the option ``--base`` is given without ``--merge``, which alone uses it."""
    if base is not None and not merge:
        raise UserError("--base: is only used by --merge; leave it out or add --merge", INVALID)


def write_export(
    folder: Path, chosen: Chosen, target: Path, *, base: str | None, merge: bool, dtype: Dtype
) -> None:
    """Write an adapter, or with ``merge`` the model merged from base model and adapter, into an empty folder.

    If ``folder`` is the folder of a run, also write a model card.

    - ``folder``: the folder that the user named, of a run or of a single adapter
    - ``chosen``: the adapter
    - ``target``: the empty folder
    - ``base``: the base model to use instead of the run's own, or None
    - ``dtype``: the number format of the merged model

    Raises UserError if the adapter cannot be read or merged, and OSError if ``target`` cannot be written.
    """
    config = previous(folder)
    if merge:
        _merge(chosen.folder, target, *_base(chosen.folder, config, base), dtype)
    else:
        _copy(chosen.folder, target, config)
    if config is not None:
        card = _card(RunFolder(folder), config, chosen, base, merged=merge)
        card_of(target).write_text(render(card), encoding="utf-8")


@contextmanager
def chosen_of(
    source: str, step: int | None, best: bool, context: str | None, namespace: str | None, image: str | None
) -> Iterator[tuple[Path, Chosen]]:
    """Yield a folder on this machine, and the adapter in this folder that the options select.

    If ``source`` is a folder, it is yielded itself. If ``source`` is the name of a job in the cluster, the
    job's adapter and metrics are copied into a temporary folder, and this folder is yielded.

    - ``step``, ``best``: the values of the options ``--step`` and ``--best``; with neither, the final adapter
    - ``image``: the image of the pod that reads the job's volume; None: the image of the job

    Raises UserError if there is no such folder, job or adapter.
    """
    refuse_both(step, best)

    def fetch_chosen(paths: list[str], fetch: Fetch) -> None:
        fetch_adapter(source, paths, fetch, step, best)

    with run_folder(source, context, namespace, image, _FILES, fetch_chosen) as folder:
        yield folder, choose(folder, step, best)


def refuse_both(step: int | None, best: bool) -> None:
    """Raise UserError if the options ``--step`` and ``--best`` are both given."""
    if step is not None and best:
        raise UserError("--step and --best exclude each other; give only one", INVALID)


def fetch_adapter(job: str, paths: list[str], fetch: Fetch, step: int | None, best: bool) -> None:
    """Copy a job's metrics and the adapter that the options select from the job's volume to this machine.

    - ``job``: the name of the job, for messages
    - ``paths``: the paths of all files in the job's folder that match ``_FILES``
    - ``fetch``: a function that copies files to this machine
    - ``step``, ``best``: the values of the options ``--step`` and ``--best``

    Few files are copied, because the pod reads each of them twice: for its digest, and to send it. The
    adapter of an older checkpoint is copied only in these cases:

    - The newer checkpoints cannot be used.
    - ``step`` is the step of this checkpoint.
    - ``best`` is true, and this checkpoint has the highest held-out reward.

    Raises:
        UserError: if the job has no adapter, or no checkpoint of the step that the options select.
    """
    configs = [Path(path) for path in paths if path.endswith(f"/{ADAPTER}/{ADAPTER_CONFIG}")]
    steps = steps_of((config.parent.parent.name for config in configs), "")
    has_final = step is None and not best and f"{ADAPTER}/{ADAPTER_CONFIG}" in paths
    if step is not None and step not in steps:
        raise _no_checkpoint(step, f"the folder of {job}", steps)
    if not steps and not has_final:
        raise UserError(
            f"{job}: has neither an adapter nor a checkpoint; export it after its first checkpoint", INVALID
        )
    run = RunFolder(fetch([str(RunFolder(Path()).metrics)]))
    if has_final and _problem(fetch([f"{ADAPTER}/*"]) / ADAPTER) is None:
        return
    for each in reversed(steps) if step is None else [step]:
        fetch(_files_of(each))
        if _problem(adapter_of(run.checkpoint_of(each))) is None:
            break
    else:
        return  # none can be used, and ``choose`` says why
    if best and (wanted := _best_step(run.checkpoint_of(each))) != each:
        if wanted not in steps:
            raise _no_checkpoint(wanted, f"the folder of {job}", steps)
        fetch(_files_of(wanted))


def _files_of(step: int) -> list[str]:
    """Return ``fnmatch`` patterns for the files to copy from the checkpoint of a step.

    These are the files of the adapter, and the file with the state of the run. The patterns are relative to
    the run's folder.
    """
    checkpoint = RunFolder(Path()).checkpoint_of(step)
    return [f"{adapter_of(checkpoint)}/*", str(state_of(checkpoint))]


def _no_checkpoint(step: int, where: str, steps: Sequence[int]) -> UserError:
    kept = f"there are checkpoints of steps {', '.join(map(str, steps))}" if steps else "it has no checkpoint"
    return UserError(f"step {step}: has no checkpoint in {where}; {kept}", INVALID)


def choose(folder: Path, step: int | None, best: bool) -> Chosen:
    """Return the adapter in ``folder`` that the options ``--step`` and ``--best`` select.

    ``folder`` is a run's folder, or the folder of a single adapter. If neither option is given, return the
    final adapter of the run. If the final adapter is missing or broken, return the adapter of the newest
    checkpoint that has a usable one.

    Raises:
        UserError: if there is no such adapter, or if both options are given.
    """
    refuse_both(step, best)
    if (folder / ADAPTER_CONFIG).is_file():
        if step is not None or best:
            raise UserError(f"{folder}: is an adapter and has no steps; name the run's folder", INVALID)
        return Chosen(folder, "the adapter")
    run = RunFolder(folder)
    if step is None and not best and run.adapter.is_dir() and _is_whole(run.adapter):
        return Chosen(run.adapter, "the last step")
    steps = [step for step in run.steps_with_checkpoint() if _is_whole(adapter_of(run.checkpoint_of(step)))]
    if not steps:
        raise UserError(f"{folder}: has neither an adapter nor a checkpoint; name a run's folder", UNREADABLE)
    wanted = _best_step(run.checkpoint_of(steps[-1])) if best else steps[-1] if step is None else step
    if wanted not in steps:
        raise _no_checkpoint(wanted, str(folder), steps)
    return Chosen(adapter_of(run.checkpoint_of(wanted)), f"step {wanted}", wanted)


def _is_whole(adapter: Path) -> bool:
    """Return whether the adapter in the folder ``adapter`` is complete and can be used.

    If not, print the reason on standard error.
    """
    problem = _problem(adapter)
    if problem is not None:
        err().print(f"left out: {problem}", markup=False, soft_wrap=True)
    return problem is None


def _problem(adapter: Path) -> str | None:
    """Return why the adapter in the folder ``adapter`` cannot be used, or None if it can be used.

    Raises UserError if a file cannot be read because of an error of the operating system.
    """
    try:
        return adapter_problem(adapter)
    except OSError as error:
        raise UserError(f"{adapter}: cannot be read: {error.strerror}", UNREADABLE) from error


def _best_step(newest: Path) -> int:
    """Return the step of the checkpoint that has the highest held-out reward of the run.

    The step is read from the state file in ``newest``, the folder of the run's newest checkpoint. Raises
    UserError if no checkpoint of the run was evaluated.
    """
    reached = records.state(state_of(newest))
    if reached.best_reward is None:
        raise UserError(
            "--best: no checkpoint of this run was evaluated; choose one with --step, or set"
            " spec.evaluation.everySteps for the next run"
        )
    return reached.best_step


def _base(adapter: Path, config: RunConfig | None, given: str | None) -> tuple[str, str | None]:
    """Return the name and the revision of an adapter's base model. The revision may be None.

    The base model is the first of these that is known:

    - ``given``, the value of ``--base``; then the revision is None
    - the base model in ``config``, the configuration of the run
    - the base model in the ``adapter_config.json`` of the adapter; then the revision is None

    Raises UserError if no base model is known.
    """
    if given is not None:
        return given, None
    if config is not None:
        return config.spec.model.name, config.spec.model.revision
    named = records.adapter_config(adapter).get("base_model_name_or_path")
    if not named:
        raise UserError(f"{adapter}: does not name its base model; add --base", INVALID)
    return str(named), None


def _copy(adapter: Path, target: Path, config: RunConfig | None) -> None:
    """Copy the files of an adapter into the folder ``target``.

    ``config`` is the configuration of the run, or None if it is not known. If it is known, the base model of
    the run is written into the ``adapter_config.json`` of the copy.
    """
    body = records.adapter_config(adapter)
    if config is not None:
        model = config.spec.model
        body = named(body, model.name, records.commit_in(body, model.revision))
    for file in sorted(adapter.iterdir()):
        _copy_file(file, target / file.name)
    (target / ADAPTER_CONFIG).write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


def _copy_file(file: Path, target: Path) -> None:
    """Copy a file of an adapter to the path ``target``. If ``file`` is a folder, skip it and print a note.

    Raises UserError if ``file`` is a link, because a link may lead to any file.
    """
    if file.is_dir() and not file.is_symlink():
        err().print(
            f"not copied: {file} is a folder, but an adapter consists of files only",
            markup=False,
            soft_wrap=True,
        )
        return
    try:
        with run_files.opened(file) as source, target.open("xb") as copy:
            shutil.copyfileobj(source, copy)
    except run_files.UnreadableFile as error:
        raise UserError(f"{file}: {error}", UNREADABLE) from error


def _card(run: RunFolder, config: RunConfig, chosen: Chosen, base: str | None, *, merged: bool) -> Card:
    """Return the content of the model card for an exported adapter or, if ``merged``, for a merged model.

    - ``run``, ``config``: the folder and the configuration of the run
    - ``chosen``: the adapter
    - ``base``: the base model to name instead of the run's own, or None
    """
    steps = records.steps(run.metrics)
    step = chosen.step if chosen.step is not None else records.last_step(steps)
    model = config.spec.model
    revision = records.commit_in(records.adapter_config(chosen.folder), model.revision)
    if base is not None:
        model, revision = model.model_copy(update={"name": base}), None
    spec = config.spec.model_copy(update={"model": model})
    return Card(
        config.model_copy(update={"spec": spec}),
        step,
        revision,
        licence_said(chosen.folder),
        [(record.step, record.reward) for record in steps if record.reward is not None],
        records.status(run.status).evaluation,
        merged,
    )


def _merge(adapter: Path, target: Path, base: str, revision: str | None, dtype: Dtype) -> None:
    """Merge an adapter into its base model, and write the merged model into the folder ``target``.

    ``revision`` is the revision of the base model on the hub, or None. A child process merges with the
    trainer's package, so that ``rft`` itself never loads torch. Raises UserError if the merge fails.
    """
    python, *_ = trainer_command()
    command = [python, "-P", "-m", "rft_trainer.export", "--adapter", str(adapter), "--base", base]
    command += ["--output", str(target), "--dtype", dtype, *(["--revision", revision] if revision else [])]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"merging {adapter} into {base} failed: {said[-1]}", INVALID)


@contextmanager
def _placed(output: Path, force: bool) -> Iterator[Path]:
    """Yield an empty folder for the exported files, which becomes the folder ``output`` at the end.

    It is renamed to ``output`` if the ``with`` block raises no exception. With ``force`` an existing
    ``output`` is replaced.

    Raises:
        UserError: if ``output`` cannot be written, or exists already and ``force`` is false.
    """
    target = output.resolve()
    if target.exists() and not force:
        raise UserError(f"--output {output}: exists already; name another folder, or replace it with --force")
    try:
        with atomic.new_folder(target, replace=force) as unfinished:
            yield unfinished
            _make_readable(unfinished)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written: {error}", UNREADABLE) from error


def _make_readable(folder: Path) -> None:
    """Give all files in ``folder`` the usual permissions of new files, according to the umask.

    The library that writes the weights makes files that only their owner can read.
    """
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o666 & ~mask)
