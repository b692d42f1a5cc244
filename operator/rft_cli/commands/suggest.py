"""``rft suggest``: prints manifests of new runs (experiments) that should bring a job closer to a goal."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rft_advice.suggest import Experiment, Goal, Suggestions, left_out, other_goals
from rft_advice.suggest import suggest as suggested
from rft_api.controls import one_line
from rft_api.dumper import dump
from rft_api.problems import InvalidManifest
from rft_cli.errors import INVALID, UserError
from rft_cli.local.manifest import folder_of, name_of, on_this_machine, the_job
from rft_cli.local.own_files import with_code
from rft_cli.new_files import write_new
from rft_cli.render.console import err, reports_errors, write


@reports_errors
def suggest(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Manifest with one RFTJob; - reads stdin.")],
    goal: Annotated[Goal, typer.Option("--goal", help="What the next run should improve.")],
    output: Annotated[
        Path | None, typer.Option("--output", help="Write one file for each experiment into this folder.")
    ] = None,
) -> None:
    """Print manifests of new runs toward a goal, each with one changed parameter of the job.

    The new value is within the parameter's range. Other objects in the file, such as ConfigMaps, are not
    printed. The new manifests refer to them by the same names as the job.
    """
    written = the_job(file)
    document = on_this_machine(with_code([written], folder_of(file))[0])
    try:
        found = suggested(document.body, goal)
    except InvalidManifest as error:
        lines = "\n".join(f"  {problem}" for problem in error.problems)
        raise UserError(f"{document.source}: is not valid:\n{lines}", INVALID) from error
    body = written.body
    texts = {each.name: _text(_as_written(each, body), body, goal) for each in found.experiments}
    if output is None and texts:
        write("---\n".join(texts.values()).removesuffix("\n"))
    elif output is not None:
        _write(texts, output, name_of(document.body))
    _say_what_is_left(found, goal, other_goals(document.body, goal))
    if output is not None:
        _say_what_is_relative(document.body, file, output)


def _as_written(experiment: Experiment, body: dict[str, Any]) -> Experiment:
    """Return an experiment whose manifest has the graders and the storage that the user wrote.

    ``body`` is the manifest of the user's job. Before the experiments were computed, each ``python.file`` in
    it was replaced by a ConfigMap, and a missing storage by ephemeral storage. This function undoes these two
    changes in the experiment.
    """
    spec = {**experiment.manifest["spec"], "graders": body["spec"]["graders"]}
    if "storage" not in body["spec"]:
        del spec["storage"]
    return experiment._replace(manifest={**experiment.manifest, "spec": spec})


def _text(experiment: Experiment, baseline: dict[str, Any], goal: Goal) -> str:
    """Return the manifest of an experiment as YAML, with comments that explain what changes, and why.

    - ``baseline``: the manifest of the user's job, from which the experiment was made
    - ``goal``: what the experiment should improve
    """
    without = left_out(baseline, experiment.manifest)
    comments = [
        f"{experiment.path}: {experiment.old} -> {experiment.new}",
        f"Toward {goal}: {experiment.why}.",
        *(f"advice: {advice}" for advice in experiment.advice),
        *([f"{without}."] if without else []),
    ]
    return "".join(f"# {one_line(line)}\n" for line in comments) + dump(experiment.manifest)


def _write(texts: dict[str, str], folder: Path, baseline: str) -> None:
    files = {folder / f"{name}.yaml": text for name, text in texts.items()}
    write_new(files)
    for path in files:
        err().print(str(path), markup=False)
    if texts:
        err().print(f"after the runs: rft compare {baseline} {' '.join(texts)}", markup=False)


def _say_what_is_left(found: Suggestions, goal: Goal, others: list[Goal]) -> None:
    for parameter in found.exhausted:
        err().print(f"{parameter} has no further value to try for the goal {goal}", markup=False)
    if not found.experiments:
        left = f"; other goals for which there are experiments: {', '.join(others)}" if others else ""
        err().print(
            f"{goal}: no parameter can be changed further; change the rows, graders or model{left}",
            markup=False,
        )


def _say_what_is_relative(body: dict[str, object], file: Path, folder: Path) -> None:
    """Print a note for each dataset whose relative ``uri`` would be wrong in the folder of the new manifests.

    Nothing is printed if this folder is the folder of the user's manifest.

    - ``body``: the manifest of the user's job
    - ``file``: the path of the user's manifest
    - ``folder``: the folder of the new manifests
    """
    here = folder_of(file)
    if here == folder.resolve():
        return
    for path, option in (("dataset", "--dataset"), ("evaluation.dataset", "--evaluation-dataset")):
        part: object = body.get("spec")
        for name in (*path.split("."), "uri"):
            part = part.get(name) if isinstance(part, dict) else None
        if isinstance(part, str) and part.startswith("."):
            said = f"spec.{path}.uri {part} is relative to {here}; for rft run, pass {option}"
            err().print(f"note: {said}", markup=False)
