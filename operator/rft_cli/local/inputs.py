"""Finds the datasets and the grader code for a run on this machine.

In a cluster, they are mounted into the trainer's pod. On this machine, they come from paths in the manifest,
from ConfigMaps in the manifest's file, or from files on the command line.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from rft_api.job import RFTJobSpec
from rft_api.sources import Dataset
from rft_cli.errors import UNREADABLE, UserError
from rft_cli.local.manifest import Manifest
from rft_run import atomic


class Input(NamedTuple):
    """An input file of the trainer: a dataset, or the code of a grader.

    It exists already, or ``write`` creates it at ``location`` from ``content``.
    """

    location: str
    """The absolute path of the file, or a URI from which the trainer downloads it."""
    content: bytes | None = None
    """The content to write to ``location``, or None if the file exists already."""

    def digest(self) -> str | None:
        """Return the SHA-256 digest of the file's content as hexadecimal digits. Return None if the location
        is a remote URI.
        """
        if self.content is not None:
            return hashlib.sha256(self.content).hexdigest()
        if "://" in self.location:
            return None
        with Path(self.location).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def write(self) -> None:
        """Write ``content`` to the path ``location``. Do nothing if ``content`` is None."""
        if self.content is not None:
            atomic.write_bytes(Path(self.location), self.content)


class Overrides(NamedTuple):
    """Files from the command line that replace inputs in the manifest, such as a dataset on a volume of the
    cluster. None: no replacement.

    ``graders`` has the file with the code of a grader, by the grader's name.
    """

    dataset: Path | None = None
    evaluation: Path | None = None
    graders: Mapping[str, Path] = {}


class Inputs(NamedTuple):
    """All input files of a run on this machine: the datasets and the code of the python graders.

    ``evaluation`` is None if there is no separate evaluation dataset. ``graders`` has the file with a
    grader's code, by the grader's name. Graders with inline code are left out.
    """

    dataset: Input
    evaluation: Input | None
    graders: dict[str, Input]
    beside: dict[str, list[Input]]
    """For each grader, by its name: the other files in the ConfigMap with its code. The code can import them.
    """

    def named(self) -> dict[str, Input]:
        """Return all input files in one mapping. The key is a name for messages, such as ``spec.dataset`` or
        ``grader NAME``.
        """
        found = {"spec.dataset": self.dataset}
        if self.evaluation is not None:
            found["spec.evaluation.dataset"] = self.evaluation
        return found | {f"grader {name}": given for name, given in self.graders.items()} | self.helpers()

    def helpers(self) -> dict[str, Input]:
        """Return the files in ``beside`` in one mapping. The key is a name for messages: ``grader NAME,
        FILE``, where NAME is the grader's name and FILE the file's name.
        """
        return {
            f"grader {name}, {Path(given.location).name}": given
            for name, files in self.beside.items()
            for given in files
        }


def resolve(manifest: Manifest, overrides: Overrides, folder: Path) -> Inputs:
    """Find all input files of a run on this machine: the datasets and the graders' code.

    A file from ``overrides`` replaces the source in the manifest. An input from a ConfigMap gets a path in
    ``folder``, but is not written yet.

    Raises:
        UserError: if an input is missing. The message names the option that supplies it.
    """
    spec = manifest.job.spec
    refuse_other_graders(spec, overrides.graders)
    dataset = located(manifest, "spec.dataset", spec.dataset, overrides.dataset, "--dataset", folder)
    evaluation = None
    if spec.evaluation.dataset is not None:
        source, override = spec.evaluation.dataset, overrides.evaluation
        evaluation = located(
            manifest, "spec.evaluation.dataset", source, override, "--evaluation-dataset", folder
        )
    elif overrides.evaluation is not None:
        raise UserError("--evaluation-dataset: the manifest has no spec.evaluation.dataset", UNREADABLE)
    return Inputs(dataset, evaluation, *located_code(manifest, overrides.graders, folder))


def refuse_other_graders(spec: RFTJobSpec, given: Mapping[str, Path]) -> None:
    """Raise UserError if the option ``--grader NAME=FILE`` names a grader whose code is not in a ConfigMap.
    Only code from a ConfigMap can be replaced by a file.

    ``given`` has the values of the option: FILE by NAME.
    """
    replaceable = {grader.name for grader in spec.scored_by if grader.python and grader.python.config_map}
    for name in sorted(set(given) - replaceable):
        allowed = ", ".join(sorted(replaceable)) or "none here"
        raise UserError(
            f"--grader {name}: no grader of this name has its code in a ConfigMap; name one of: {allowed}",
            UNREADABLE,
        )


def located_code(
    manifest: Manifest, overrides: Mapping[str, Path], folder: Path
) -> tuple[dict[str, Input], dict[str, list[Input]]]:
    """Find the code of the python graders. Return two mappings, both by the grader's name.

    - The first has the file with the grader's code, as ``located_graders`` returns it.
    - The second has the other files in the grader's ConfigMap, which the code can import. It lacks graders
      whose code is replaced by a file of ``overrides``.

    A file from a ConfigMap gets a path in ``folder``, but is not written yet.
    """
    graders = located_graders(manifest, overrides, folder)
    beside = {
        name: _beside(manifest, name, given) for name, given in graders.items() if given.content is not None
    }
    return graders, beside


def located(
    manifest: Manifest, field: str, source: Dataset, override: Path | None, flag: str, folder: Path
) -> Input:
    """Find the file with the rows of a dataset, for a run on this machine.

    - ``field``: the manifest's field: ``spec.dataset`` or ``spec.evaluation.dataset``
    - ``source``: the value of this field
    - ``override``: the file that replaces ``source``, or None
    - ``flag``: the option that names ``override``, for error messages
    - ``folder``: the folder for rows from a ConfigMap; the file is not written yet

    Raises:
        UserError: if the dataset is missing, or exists only in a cluster.
    """
    if override is not None:
        return _file(override.resolve(), flag)
    if source.config_map is not None:
        reference = source.config_map
        content = _from_config_map(
            manifest, f"{field}.configMap", reference.name, reference.key, f"{flag} FILE"
        )
        name = "train.jsonl" if field == "spec.dataset" else "evaluation.jsonl"
        return Input(str(folder / name), content)
    if source.persistent_volume_claim is not None:
        claim = source.persistent_volume_claim
        raise UserError(
            f"{field}.persistentVolumeClaim: the claim {claim.claim_name!r} exists only in a cluster;"
            f" pass {flag} FILE with a copy of {claim.path}",
            UNREADABLE,
        )
    return _uri(manifest.folder, f"{field}.uri", source.uri or "")


def _uri(relative_to: Path, field: str, uri: str) -> Input:
    if "://" not in uri:
        return _file((relative_to / uri).resolve(), field)
    parts = urlsplit(uri)
    if parts.scheme != "file":
        return Input(uri)
    # In file://data/train.jsonl, "data" is parsed as a host. The user means a folder of a relative path.
    return _file((relative_to / unquote(parts.netloc + parts.path)).resolve(), field)


def located_graders(manifest: Manifest, overrides: Mapping[str, Path], folder: Path) -> dict[str, Input]:
    """Return the file with the code of each python grader whose code is in a ConfigMap, by the grader's name.

    A file of ``overrides`` (by the grader's name) replaces the code in the ConfigMap. A file from a ConfigMap
    gets a path in ``folder``, but is not written yet. Graders with inline code are left out. Raises UserError
    if a ConfigMap or a file is missing.
    """
    found: dict[str, Input] = {}
    spec = manifest.job.spec
    for i, grader in enumerate(spec.scored_by):
        if grader.name in overrides:
            found[grader.name] = _file(overrides[grader.name].resolve(), f"--grader {grader.name}")
        elif grader.python is not None and grader.python.config_map is not None:
            reference = grader.python.config_map
            content = _from_config_map(
                manifest,
                f"{f'spec.graders[{i}]' if i < len(spec.graders) else 'spec.environment'}.python.configMap",
                reference.name,
                reference.key,
                f"--grader {grader.name}=FILE",
            )
            found[grader.name] = Input(str(folder / "graders" / grader.name / reference.key), content)
    return found


def _beside(manifest: Manifest, name: str, given: Input) -> list[Input]:
    """Return the other files in the ConfigMap with the code of the grader ``name``.

    Each gets a path in the folder of ``given``, which is the file with the code. Then the code can import
    them.
    """
    python = next(grader.python for grader in manifest.job.spec.scored_by if grader.name == name)
    assert python is not None
    assert python.config_map is not None
    code, path = python.config_map, Path(given.location)
    contents = manifest.config_maps[code.name]
    return [Input(str(path.with_name(key)), content) for key, content in contents.items() if key != code.key]


def _file(path: Path, field: str) -> Input:
    if not path.is_file():
        raise UserError(f"{field}: {path} is not a file; name one that exists", UNREADABLE)
    return Input(str(path))


def _from_config_map(manifest: Manifest, field: str, name: str, key: str, flag: str) -> bytes:
    if name not in manifest.config_maps:
        raise UserError(
            f"{field}.name: no ConfigMap {name!r} in {manifest.path};"
            f" add it there as another document, or pass {flag}",
            UNREADABLE,
        )
    contents = manifest.config_maps[name]
    if key not in contents:
        keys = ", ".join(sorted(contents)) or "none"
        raise UserError(f"{field}.key: the ConfigMap {name!r} has no {key!r}; it has {keys}", UNREADABLE)
    return contents[key]
