"""Finds errors in a valid manifest that would make the job fail later. Users' code is never run."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rft_api import ahead, meant
from rft_api.job import RFTJobSpec
from rft_api.loader import Document
from rft_api.problems import Problem
from rft_api.sources import Dataset
from rft_cli.errors import UserError
from rft_cli.local.inputs import located
from rft_cli.local.manifest import Manifest
from rft_cli.local.rows import checked_rows, opened
from rft_graders import ahead as graders_ahead
from rft_graders.row_fields import required_fields
from rft_planner.steps import MIN_HELD_OUT, OTHERWISE
from rft_run.errors import DataError
from rft_run.rows import RowLayout

MIN_PROMPTS = 2 * MIN_HELD_OUT
"""Number of different prompts that a dataset needs if a part of it is held out: 32 for evaluation and 32 for
training.
"""

_TOP = ("apiVersion", "kind", "metadata", "spec", "status")
_METADATA = (
    "name", "namespace", "labels", "annotations", "generateName", "finalizers", "ownerReferences", "uid",
    "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
    "managedFields", "selfLink",
)  # fmt: skip


def foreseen(manifest: Manifest, document: Document) -> tuple[tuple[Problem, ...], list[str]]:
    """Return two things: the errors in a valid manifest that would make the job fail later, and warnings,
    for example about too few rows for evaluation.

    A field in the wrong place counts as an error, because Kubernetes drops it. ``document`` is the manifest's
    RFTJob as the file has it, with such fields.
    """
    spec = manifest.job.spec
    code, missing = _code(manifest)
    rows, warned = _rows(manifest, code)
    return (
        *misplaced(document.body), *ahead.problems(spec), *missing, *graders_ahead.problems(spec, code), *rows
    ), warned  # fmt: skip


def misplaced(body: Mapping[str, Any]) -> list[Problem]:
    """Return a problem for each field beside the spec, and of the metadata, that an RFTJob does not have."""
    found = [
        Problem(key, f"no such field of an RFTJob, so Kubernetes drops it; {_meant(key)}")
        for key in body
        if key not in _TOP
    ]
    metadata = body.get("metadata")
    for key in metadata if isinstance(metadata, dict) else ():
        if key not in _METADATA:
            close = difflib.get_close_matches(str(key), _METADATA, 1)
            said = f"did you mean metadata.{close[0]}?" if close else "set it in labels or annotations"
            found.append(Problem(f"metadata.{key}", f"no such field of an object in Kubernetes; {said}"))
    return found


def _meant(key: str) -> str:
    """Return advice for a key at the top of an RFTJob that is no field there."""
    names = [info.alias or name for name, info in RFTJobSpec.model_fields.items()]
    close = difflib.get_close_matches(key, _TOP, 1)
    found = close[0] if close and key not in names else meant.field(
        key, names, "spec", meant.all_paths(RFTJobSpec, "spec")
    )  # fmt: skip
    return f"did you mean {found}?" if found else f"the fields here are {', '.join(_TOP)}"


def _code(manifest: Manifest) -> tuple[dict[str, str], list[Problem]]:
    """Return the code of python graders by the grader's name, and the problems of the ConfigMaps with this
    code.

    Only graders whose ConfigMap is in the manifest's file are returned.
    """
    found: dict[str, str] = {}
    problems = []
    spec = manifest.job.spec
    for i, grader in enumerate(spec.scored_by):
        reference = grader.python.config_map if grader.python is not None else None
        if reference is None or reference.name not in manifest.config_maps:
            continue
        contents = manifest.config_maps[reference.name]
        field = f"spec.graders[{i}]" if i < len(spec.graders) else "spec.environment"
        path = f"{field}.python.configMap.key"
        if reference.key not in contents:
            problems.append(_no_key(path, reference.name, reference.key, contents))
            continue
        try:
            found[grader.name] = contents[reference.key].decode()
        except UnicodeDecodeError:
            problems.append(Problem(path, f"{reference.key!r} of ConfigMap {reference.name!r} is not UTF-8"))
    return found, problems


def _no_key(path: str, name: str, key: str, contents: dict[str, bytes]) -> Problem:
    keys = ", ".join(contents) or "none"
    return Problem(path, f"the ConfigMap {name!r} in the same file has no key {key!r}; it has {keys}")


def _rows(manifest: Manifest, code: Mapping[str, str]) -> tuple[list[Problem], list[str]]:
    """Check the rows of the job's datasets. Return the problems and the warnings.

    A dataset is checked only if its rows are on this machine, or in a ConfigMap in the manifest's file.
    ``code`` has the code of python graders, by the grader's name, if it is not in the manifest itself.
    """
    spec = manifest.job.spec
    problems, warned = [], []
    evaluated = spec.evaluation.dataset
    required = required_fields(spec.graders)
    splits = evaluated is None and not spec.evaluation.is_off
    for path, source, least in (
        ("spec.dataset", spec.dataset, MIN_PROMPTS if splits else 1),
        ("spec.evaluation.dataset", evaluated, 1),
    ):
        if source is None or not _is_here(manifest, source):
            continue
        try:
            given = located(manifest, path, source, None, "--dataset", Path())
            with opened(given) as file:
                layout = RowLayout.of(source, path)
                prompts, unmet, fields = checked_rows(file, given.location, layout, required)
        except (UserError, DataError) as error:
            problems.append(Problem(path, str(error).removeprefix(f"{path}: ")))
            continue
        if source is spec.dataset:
            warned += _ignored_fields(spec, code, fields)
        if unmet:
            problems.append(Problem(path, unmet))
        if prompts is not None and prompts < least:
            problems.append(Problem(path, _too_few(prompts, least)))
        elif prompts is not None and path.startswith("spec.evaluation") and prompts < MIN_HELD_OUT:
            warned.append(
                f"{path}: {prompts} distinct prompts give a wide confidence interval, which may hide the"
                f" difference between base and tuned model; use {MIN_HELD_OUT} or more"
            )
    return problems, warned


def _ignored_fields(spec: RFTJobSpec, code: Mapping[str, str], fields: frozenset[str]) -> list[str]:
    """Return warnings for parameters of python graders that do not get the field that was probably meant.

    They have a default and the name of a field, or a name that is similar to a field's. ``fields`` are the
    fields of the rows. A parameter of another name gets the whole row, so right answers may score 0.
    """
    warned = []
    for i, grader in enumerate(spec.graders):
        source = code.get(grader.name) or (grader.python.inline if grader.python is not None else None)
        if grader.python is None or source is None:
            continue
        function = grader.python.function
        warned += [
            f"spec.graders[{i}].python: the parameter {name} of {function} has a default, so it does not get"
            f" the field {name} of the row; remove the default to get the field"
            for name in sorted(graders_ahead.options_of(source, function) & fields)
        ]
        name = graders_ahead.row_parameter_of(source, function) or ""
        if name not in fields and (close := difflib.get_close_matches(name, fields, 1, cutoff=0.75)):
            warned.append(
                f"spec.graders[{i}].python: the parameter {name} of {function} gets the whole row, because"
                f" the rows have no field {name}; did you mean {close[0]}?"
            )
    return warned


def _too_few(prompts: int, least: int) -> str:
    if least == 1:
        return "has no rows"
    return (
        f"{prompts} distinct prompts are fewer than {least}: {MIN_HELD_OUT} are held out for the evaluation"
        f" and at least as many trained on; add rows, {OTHERWISE}"
    )


def _is_here(manifest: Manifest, source: Dataset) -> bool:
    """Return whether the rows can be checked: they are in a ConfigMap in the manifest's file, or at a path on
    this machine.

    An absolute path counts only if a file exists there, because the path may be one in the pod.
    """
    if source.config_map is not None:
        return source.config_map.name in manifest.config_maps
    uri = source.uri or ""
    path = uri.removeprefix("file://")
    if path.startswith("/"):
        return Path(path).exists()
    return uri.startswith(".") or path != uri
