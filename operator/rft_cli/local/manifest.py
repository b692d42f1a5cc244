"""Reads files with manifests: RFTJobs, and the ConfigMaps in the same file."""

import base64
import binascii
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from rft_api import API_VERSION, GROUP, KIND
from rft_api.job import RFTJob
from rft_api.loader import Document, UnreadableManifest, load_documents, load_file
from rft_api.problems import from_validation_error
from rft_api.validation import check
from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_cli.local.own_files import Folders, with_code

STDIN = Path("-")
_KEY = re.compile(r"[-._a-zA-Z0-9]+")


class Manifest(NamedTuple):
    """A valid RFTJob, and the other objects of the file that it was read from."""

    path: Path
    job: RFTJob
    config_maps: dict[str, dict[str, bytes]]
    """The contents of the ConfigMaps in the file, by name and key."""

    @property
    def folder(self) -> Path:
        """The folder to which relative paths in the manifest refer."""
        return folder_of(self.path)


def read(path: Path, allowed: Folders | None = None) -> list[Document]:
    """Return the Kubernetes objects of a file. The path ``-`` means standard input.

    For each file that a job names by ``python.file``, a ConfigMap with this file follows the job.

    ``allowed``: folders whose files may be sent to a cluster, in addition to the manifest's folder. None
    means that nothing is sent to a cluster, so every file may be read.

    Raises:
        UserError: if the file cannot be read as YAML, or a file that it names cannot be read.
    """
    folder = folder_of(path)
    return with_code(as_written(path), folder, None if allowed is None else (folder, *allowed))


def as_written(path: Path) -> list[Document]:
    """Return the Kubernetes objects of a file, unchanged. Raises UserError if the file cannot be read."""
    try:
        return load_documents(sys.stdin.read(), "stdin") if path == STDIN else load_file(path)
    except UnreadableManifest as error:
        raise UserError(str(error), UNREADABLE) from error


def folder_of(path: Path) -> Path:
    """Return the folder to which relative paths in a manifest refer: the folder of the manifest's file.

    For standard input, return the working folder.
    """
    return Path.cwd() if path == STDIN else path.resolve().parent


def on_this_machine(document: Document) -> Document:
    """Return a job for a run on this machine: a job without ``spec.storage`` gets ephemeral storage.

    Otherwise the job would not be valid. The run itself uses the folder of ``--output``.
    """
    body = document.body
    spec = body.get("spec")
    if not isinstance(spec, dict) or "storage" in spec:
        return document
    return Document(document.source, {**body, "spec": {**spec, "storage": {"ephemeral": {}}}})


def is_job(body: Mapping[str, Any]) -> bool:
    """Whether an object is an RFTJob, or was probably meant to be one.

    This is so if at least its kind or its API group is that of an RFTJob.
    """
    group = str(body.get("apiVersion", "")).partition("/")[0]
    return group == GROUP or str(body.get("kind", "")).lower() == KIND.lower()


def jobs_of(documents: list[Document], path: Path) -> list[Document]:
    """Return the RFTJobs in a file. Raises UserError if the file has none."""
    jobs = [document for document in documents if is_job(document.body)]
    if not jobs:
        raise UserError(nothing_in(documents, path), INVALID)
    return jobs


def nothing_in(documents: list[Document], path: Path) -> str:
    """Return the error message for a file without an RFTJob. It says what the file contains instead."""
    if not documents:
        return f"{path}: has no {KIND}: it is empty"
    kinds = dict.fromkeys(
        str(document.body.get("kind", "an object without a kind")) for document in documents
    )
    said = f"{path}: has no {KIND}, only {', '.join(kinds)}"
    if any({"model", "dataset", "graders"} & set(document.body) for document in documents):
        said += "; its fields are those of a spec: put them into an object with"
        said += f" apiVersion: {API_VERSION}, kind: {KIND}, metadata and spec"
    return said


def load(path: Path) -> Manifest:
    """Return the only RFTJob of a file, and the file's ConfigMaps, for a run on this machine.

    Raises:
        UserError: if the file does not have exactly one RFTJob, or the RFTJob is not valid.
    """
    documents = read(path)
    document = on_this_machine(_only_job(documents, path))
    job, problems = check(document.body)
    if job is None:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(f"{document.source}: is not valid:\n{lines}", INVALID)
    return Manifest(path, job, config_maps(documents, job.metadata.namespace))


def with_spec(job: RFTJob, spec: dict[str, Any]) -> RFTJob:
    """Return the job with the new spec ``spec``, a JSON object. The new spec is validated.

    Raises:
        UserError: if the new spec is not valid. The message has all problems.
    """
    try:
        return job.model_copy(update={"spec": type(job.spec).model_validate(spec)})
    except ValidationError as error:
        problems = "; ".join(f"spec.{problem}" for problem in from_validation_error(error, type(job.spec)))
        raise UserError(problems, INVALID) from error


def the_job(path: Path) -> Document:
    """Return the only RFTJob of a file, without validation.

    Raises:
        UserError: if the file does not have exactly one RFTJob.
    """
    return _only_job(as_written(path), path)


def _only_job(documents: list[Document], path: Path) -> Document:
    jobs = [document for document in documents if is_job(document.body)]
    if len(jobs) != 1:
        names = ", ".join(name_of(document.body) for document in jobs)
        found = f"has {len(jobs)} RFTJobs ({names})"
        raise UserError(f"{path}: {found}; it must have exactly one" if jobs else nothing_in(documents, path))
    return jobs[0]


def name_of(body: Mapping[str, Any]) -> str:
    """Return the ``metadata.name`` of an object, or the text "without a name"."""
    metadata = body.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return str(name) if name else "without a name"


def config_maps(documents: list[Document], namespace: str) -> dict[str, dict[str, bytes]]:
    """Return the contents of the ConfigMaps of a namespace, by the ConfigMap's name and then by key.

    Raises UserError if a key or a content is not valid.
    """
    found: dict[str, dict[str, bytes]] = {}
    for source, body in documents:
        if body.get("apiVersion") != "v1" or body.get("kind") != "ConfigMap":
            continue
        metadata = body.get("metadata") or {}
        # A ConfigMap without a namespace is in the job's namespace.
        if metadata.get("namespace", namespace) == namespace:
            found[name_of(body)] = _contents(source, body)
    return found


def _contents(source: str, body: Mapping[str, Any]) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    for key in (*(body.get("data") or {}), *(body.get("binaryData") or {})):
        # A key becomes the name of a file.
        if not _KEY.fullmatch(str(key)) or str(key) in (".", ".."):
            raise UserError(
                f"{source}: {str(key)!r} is not a valid ConfigMap key; use only letters, digits, -, _ and .",
                UNREADABLE,
            )
    for key, text in (body.get("data") or {}).items():
        if not isinstance(text, str):
            raise UserError(f"{source}: data.{key}: {text!r} is not a text; quote it", UNREADABLE)
        contents[str(key)] = text.encode()
    for key, text in (body.get("binaryData") or {}).items():
        try:
            contents[str(key)] = base64.b64decode(text, validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise UserError(f"{source}: binaryData.{key}: is not base64", UNREADABLE) from error
    return contents
