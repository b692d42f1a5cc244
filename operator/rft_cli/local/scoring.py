"""Prepares a held-out evaluation without training, for ``rft evaluate``, and reads its results.

The trainer makes the evaluation. It writes the scores and the rollouts into a folder, in the same files as in
the folder of a training run.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rft_api.job import Metadata, RFTJob, RFTJobSpec
from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_cli.local import records, snapshot
from rft_cli.local.device import detect
from rft_cli.local.inputs import Input, Inputs, located, located_code, refuse_other_graders
from rft_cli.local.manifest import Manifest, with_spec
from rft_run import atomic, run_files
from rft_run.bootstrap import MeanScore, mean_bootstrap
from rft_run.config import RunConfig
from rft_run.folder import RunFolder

NOT_READ = Input(os.devnull)
"""An empty file that replaces the training dataset. Training rows are not needed if the evaluation has its
own dataset."""


class Given(NamedTuple):
    """The options of ``rft evaluate`` that replace values and files of the job. None: the job's own value.

    - ``model``: the base model, as a name on the hub or a folder
    - ``samples``: the number of completions for each row
    - ``graders``: the file with the code of a grader, by the grader's name
    """

    model: str | None = None
    adapter: Path | None = None
    """Folder of the adapter with which the base model is evaluated."""
    samples: int | None = None
    dataset: Path | None = None
    """The file from which rows are held out for the evaluation, in place of ``spec.dataset``."""
    rows: Path | None = None
    """The file whose rows are all evaluated, in place of ``spec.evaluation.dataset``."""
    graders: Mapping[str, Path] = {}


class TunedAdapter(NamedTuple):
    """The folder of an adapter that a run trained, and the step after which the run saved this adapter."""

    folder: Path
    step: int


class EvaluationTask(NamedTuple):
    """An evaluation that the trainer has to make: the job with the values of the command line, and its input
    files.

    ``source`` is the folder and the configuration of the run whose policies are evaluated. It is None if the
    job comes from a manifest.
    """

    job: RFTJob
    inputs: Inputs
    source: tuple[RunFolder, RunConfig] | None = None


class PolicyScores(NamedTuple):
    """The scores of one policy in an evaluation: means over the rows, each with a 95 % confidence interval.
    A mean is None if no row was graded.

    - ``step``: the step after which the run saved the policy; 0 for the starting policy
    - ``rows``: the number of evaluated rows
    - ``completions``: the number of completions for all rows together
    """

    step: int
    rows: int
    completions: int
    reward: MeanScore | None
    graders: dict[str, MeanScore | None]
    """The scores of each grader, by the name of the grader."""
    errors: dict[str, int]
    """For each grader, by its name: the number of completions for which it failed."""
    truncated: float | None
    """Share of the completions that were truncated at ``maxTokens``, from 0 to 1."""

    def as_object(self) -> dict[str, Any]:
        """Return the scores as a JSON object with the names of the fields of this class."""
        graders = {name: _object(mean) for name, mean in self.graders.items()}
        return {**self._asdict(), "reward": _object(self.reward), "graders": graders}


def _object(mean: MeanScore | None) -> dict[str, float] | None:
    return mean._asdict() if mean is not None else None


def of_manifest(manifest: Manifest, given: Given, folder: Path) -> EvaluationTask:
    """Return the task to evaluate a manifest's starting policy, which is not trained yet.

    - ``given``: the options of the command line
    - ``folder``: the folder for inputs from ConfigMaps; they are not written yet

    Raises:
        UserError: if a value or a file cannot be used. The message names the field or the option.
    """
    manifest = manifest._replace(job=_changed(manifest.job, given))
    spec = manifest.job.spec
    refuse_other_graders(spec, given.graders)
    code = located_code(manifest, given.graders, folder)
    if spec.evaluation.dataset is not None:
        field = "spec.evaluation.dataset"
        rows = located(manifest, field, spec.evaluation.dataset, given.rows, "--rows", folder)
        return EvaluationTask(manifest.job, Inputs(NOT_READ, rows, *code))
    dataset = located(manifest, "spec.dataset", spec.dataset, given.dataset, "--dataset", folder)
    return EvaluationTask(manifest.job, Inputs(dataset, None, *code))


def of_run(run: RunFolder, config: RunConfig, adapter: Path, given: Given) -> EvaluationTask:
    """Return the task to evaluate two policies of a run: its starting policy, and its tuned policy.

    - ``run`` and ``config``: the folder of the run, and its configuration
    - ``adapter``: the folder of the adapter of the tuned policy
    - ``given``: the options of the command line; without them, the held-out rows are those of the run

    Raises:
        UserError: if a value of the command line cannot be used, or an input file of the run is not on this
            machine.
    """
    # Without validation, because a folder of an evaluation has a longer name than a job may have.
    metadata = Metadata.model_construct(
        name=config.job.name, namespace=config.job.namespace, uid=config.job.uid
    )
    job = _changed(RFTJob.model_construct(metadata=metadata, spec=config.spec), given)
    if given.model is None and (commit := records.commit_in(records.adapter_config(adapter))) is not None:
        # The job may name a branch, which may have newer commits than at the time of the training.
        model = job.spec.model.model_copy(update={"revision": commit})
        job = job.model_copy(update={"spec": job.spec.model_copy(update={"model": model})})
    refuse_other_graders(job.spec, given.graders)
    code = _code_of_run(job.spec, config, given.graders)
    source = (run, config)
    if job.spec.evaluation.dataset is not None:
        known = str(given.rows.resolve()) if given.rows is not None else config.evaluation_path
        rows = _there(known, "spec.evaluation.dataset", "--rows FILE")
        return EvaluationTask(job, Inputs(NOT_READ, rows, code, {}), source)
    known = str(given.dataset.resolve()) if given.dataset is not None else config.dataset_path
    return EvaluationTask(
        job, Inputs(_there(known, "spec.dataset", "--dataset FILE"), None, code, {}), source
    )


def _code_of_run(spec: RFTJobSpec, config: RunConfig, given: Mapping[str, Path]) -> dict[str, Input]:
    """Return the file with the code of each grader whose code is in a ConfigMap, by the grader's name.

    The file is from the command line (``given``), or is the one that the run used (``config``). Raises
    UserError if it is not on this machine.
    """
    known = {**(config.grader_code or {}), **{name: str(path.resolve()) for name, path in given.items()}}
    return {
        grader.name: _there(known.get(grader.name), f"grader {grader.name}", f"--grader {grader.name}=FILE")
        for grader in spec.scored_by
        if grader.python is not None and grader.python.config_map is not None
    }


def _there(location: str | None, field: str, option: str) -> Input:
    """Return the input file at ``location``, a path or a URI. Raises UserError if ``location`` is None, or a
    path at which this machine has no file.

    ``field`` and ``option`` are for the message: the field that names the file, and the option to replace it.
    """
    if location is None or not ("://" in location or Path(location).is_file()):
        unknown = "the run's run.json names no file for it"
        said = f"{location} is not a file on this machine" if location else unknown
        raise UserError(f"{field}: {said}; give the file's path with {option}", UNREADABLE)
    return Input(location)


def _changed(job: RFTJob, given: Given) -> RFTJob:
    """Return the job with the values of the command line, and without ``spec.tracking`` and ``spec.output``.

    Raises UserError if a value cannot be used.
    """
    spec = job.spec.dump()
    for field in ("tracking", "output"):  # nothing is sent to a tracker, and no adapter is uploaded
        spec.pop(field, None)
    if given.model is not None:
        local = Path(given.model).expanduser()
        kept = {key: value for key, value in spec["model"].items() if key not in ("revision", "parameters")}
        spec["model"] = {**kept, "name": str(local.resolve()) if local.is_dir() else given.model}
    if given.adapter is not None:
        spec["model"] = {**spec["model"], "adapter": {"path": str(given.adapter.resolve())}}
        # vLLM ignores an adapter's weights of layers that the job does not adapt.
        spec["training"] = {**spec.get("training", {}), "loraTargets": "all-linear"}
    changed = with_spec(job, {**spec, "evaluation": _evaluation(job.spec, given)})
    _refuse_without_rows(changed.spec, given)
    return changed


def _evaluation(spec: RFTJobSpec, given: Given) -> dict[str, Any]:
    """Return ``spec.evaluation`` with the values of the command line, as a JSON object.

    Raises UserError if more than one sample is asked for at temperature 0, or the file of ``--rows`` does not
    exist.
    """
    found = spec.evaluation.dump()
    if given.samples is not None:
        if given.samples > 1 and spec.evaluation.temperature == 0:
            raise UserError(
                f"--samples {given.samples}: spec.evaluation.temperature is 0, so all completions of a row"
                " would be equal; use --samples 1, or set the temperature, such as 1.0",
                INVALID,
            )
        found["samples"] = given.samples
    if given.rows is not None:
        rows = given.rows.resolve()
        if not rows.is_file():
            raise UserError(f"--rows: {rows} is not a file; name one that exists", UNREADABLE)
        # The new rows must have the format and the columns of the rows that they replace.
        layout = (spec.evaluation.dataset or spec.dataset).dump()
        kept = {key: value for key, value in layout.items() if key in ("format", "columns")}
        found["dataset"] = {**kept, "uri": rows.as_uri()}
    return found


def _refuse_without_rows(spec: RFTJobSpec, given: Given) -> None:
    if spec.evaluation.is_off:
        raise UserError(
            "spec.evaluation.fraction: 0 holds out no rows, and there is no spec.evaluation.dataset; name"
            " rows with --rows FILE",
            INVALID,
        )
    if spec.evaluation.dataset is not None and given.dataset is not None:
        other = "--rows is given" if given.rows is not None else "the job has a spec.evaluation.dataset"
        raise UserError(
            f"--dataset {given.dataset}: {other}, so no rows are held out of this file; name rows to evaluate"
            " with --rows FILE alone",
            INVALID,
        )


def prepared(evaluation: EvaluationTask, folder: Path) -> tuple[RunConfig, Path]:
    """Write the inputs and the configuration of an evaluation into an empty folder, from which the trainer
    reads them.

    Return the configuration, and the path of its file.

    Raises:
        UserError: if the job cannot run on this machine.
    """
    job, source = evaluation.job, evaluation.source
    before = source[1] if source is not None else None
    config = snapshot.build(job, evaluation.inputs, detect(job.spec.resources), folder, before)
    # The name is changed so that rft run refuses this folder, as the folder of another run. Otherwise rft run
    # could resume the run here, and would take the stored scores of the tuned policy for scores of its own.
    named = config.job.model_copy(update={"name": f"{config.job.name}-evaluation"})
    config = config.model_copy(update={"job": named})
    if source is not None:
        _copy_rendering(source[0], RunFolder(folder))
    return config, snapshot.save(folder, config, evaluation.inputs)


def _copy_rendering(run: RunFolder, target: RunFolder) -> None:
    """Copy ``rendering.json`` from the folder of a run into the folder of its evaluation. The file says how
    the run rendered rows into prompts, so the evaluation renders the same prompts.

    If the run has no such file, nothing is copied. Raises UserError if the file cannot be read.
    """
    try:
        atomic.write_bytes(target.rendering, run_files.content(run.rendering))
    except FileNotFoundError:
        pass  # an older release wrote none
    except (OSError, ValueError) as error:
        raise UserError(f"{run.rendering}: cannot be read: {error}", UNREADABLE) from error


def results(folder: RunFolder, seed: int) -> list[PolicyScores]:
    """Read the results of an evaluation from its folder. Return the scores of each evaluated policy, in the
    order of the steps after which the policies were saved.

    ``seed`` is the seed of the bootstrap that computes the confidence intervals. Raises UserError if a file
    cannot be read.
    """
    return [_of_policy(folder, step, seed) for step in folder.evaluated_steps()]


def _of_policy(folder: RunFolder, step: int, seed: int) -> PolicyScores:
    found = records.evaluation(folder, step)
    errors = dict.fromkeys(found.graders, 0)
    completions = 0
    for rollout in records.rollouts_in_turn(folder.rollouts_of(step)):
        completions += 1
        for name in rollout.errors:
            errors[name] = errors.get(name, 0) + 1
    return PolicyScores(
        step=step,
        rows=len(found.lines),
        completions=completions,
        reward=_mean(found.reward, seed),
        graders={name: _mean(scores, seed) for name, scores in found.graders.items()},
        errors=errors,
        truncated=found.truncated,
    )


def _mean(scores: list[float | None], seed: int) -> MeanScore | None:
    known = [score for score in scores if score is not None]
    return mean_bootstrap(known, seed) if known else None
