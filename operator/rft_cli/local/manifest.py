"""Reads a YAML file with manifests of RFTJobs, and the ConfigMaps in the same file."""

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
    """A valid RFTJob, and the ConfigMaps in the file from which it was read."""

    path: Path
    job: RFTJob
    config_maps: dict[str, dict[str, bytes]]
    """The contents of the ConfigMaps in the file, by the ConfigMap's name and then by key."""

    @property
    def folder(self) -> Path:
        """The folder to which relative paths in the manifest refer: that of the file, or for standard input
        the working folder.
        """
        return folder_of(self.path)


def read(path: Path, allowed: Folders | None = None) -> list[Document]:
    """Return the Kubernetes objects in the file ``path``, or in standard input if ``path`` is ``-``.

    If a job names a file with grader code by ``python.file``, a ConfigMap with this file is added after the
    job, and the job refers to the ConfigMap.

    ``allowed``: folders whose files may be sent to a cluster, in addition to the manifest's folder. None
    means that nothing is sent to a cluster, so every file may be read.

    Raises:
        UserError: if the file cannot be read as YAML, or a file with grader code cannot be read or may not be
            sent.
    """
    folder = folder_of(path)
    return with_code(as_written(path), folder, None if allowed is None else (folder, *allowed))


def as_written(path: Path) -> list[Document]:
    """Return the Kubernetes objects in the file ``path`` (``-``: standard input), without any change.

    Raises UserError if the file cannot be read as YAML.
    """
    try:
        return load_documents(sys.stdin.read(), "stdin") if path == STDIN else load_file(path)
    except UnreadableManifest as error:
        raise UserError(str(error), UNREADABLE) from error
    except UnicodeDecodeError as error:
        raise UserError(f"stdin: is not UTF-8: {error}", UNREADABLE) from error


def folder_of(path: Path) -> Path:
    """Return the folder to which relative paths in the manifest ``path`` refer: the folder of this file. For
    standard input (``-``), return the working folder.
    """
    return Path.cwd() if path == STDIN else path.resolve().parent


def on_this_machine(document: Document) -> Document:
    """Return the RFTJob ``document`` in a form that is valid for a run on this machine: add ephemeral storage
    if ``spec.storage`` is missing.

    A run on this machine does not use ``spec.storage``. It writes into the folder of ``--output``.
    """
    body = document.body
    spec = body.get("spec")
    if not isinstance(spec, dict) or "storage" in spec:
        return document
    return Document(document.source, {**body, "spec": {**spec, "storage": {"ephemeral": {}}}})


def is_job(body: Mapping[str, Any]) -> bool:
    """Return whether a Kubernetes object is an RFTJob, or is probably meant as one.

    This is true if its kind or its API group is that of an RFTJob.
    """
    group = str(body.get("apiVersion", "")).partition("/")[0]
    return group == GROUP or str(body.get("kind", "")).lower() == KIND.lower()


def jobs_of(documents: list[Document], path: Path) -> list[Document]:
    """Return the RFTJobs among ``documents``, the objects of the file ``path``.

    Raises UserError if there are none.
    """
    jobs = [document for document in documents if is_job(document.body)]
    if not jobs:
        raise UserError(nothing_in(documents, path), INVALID)
    return jobs


def nothing_in(documents: list[Document], path: Path) -> str:
    """Return the error message for a file without an RFTJob. The message names the kinds of the objects that
    the file has.
    """
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
    """Read and validate the RFTJob in a file, for a run on this machine. Return the job and the file's
    ConfigMaps.

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
    """Return a copy of ``job`` with ``spec``, a JSON object, as its spec. The new spec is validated.

    Raises:
        UserError: if the new spec is not valid. The message has all problems.
    """
    try:
        return job.model_copy(update={"spec": type(job.spec).model_validate(spec)})
    except ValidationError as error:
        problems = "; ".join(f"spec.{problem}" for problem in from_validation_error(error, type(job.spec)))
        raise UserError(problems, INVALID) from error


def the_job(path: Path) -> Document:
    """Return the only RFTJob in a file as it is written there. It is not validated.

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
    """Return the ``metadata.name`` of a Kubernetes object, or the text "without a name" if it has none."""
    metadata = body.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return str(name) if name else "without a name"


def config_maps(documents: list[Document], namespace: str) -> dict[str, dict[str, bytes]]:
    """Return the contents of the ConfigMaps among ``documents`` that belong to a namespace. The keys are the
    ConfigMap's name and then the key in it.

    A ConfigMap without a namespace counts too. Raises UserError if a key or a content is not valid.
    """
    found: dict[str, dict[str, bytes]] = {}
    for source, body in documents:
        if body.get("apiVersion") != "v1" or body.get("kind") != "ConfigMap":
            continue
        metadata = _object(source, body, "metadata")
        # A ConfigMap without a namespace counts as one in the job's namespace.
        if metadata.get("namespace", namespace) == namespace:
            found[name_of(body)] = _contents(source, body)
    return found


def _object(source: str, body: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    """Return the object in a field of a ConfigMap, or {} if it is absent. Raises UserError otherwise."""
    value = body.get(field) or {}
    if not isinstance(value, dict):
        raise UserError(f"{source}: {field} of a ConfigMap is not an object", UNREADABLE)
    return value


def _contents(source: str, body: Mapping[str, Any]) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    for key in (*_object(source, body, "data"), *_object(source, body, "binaryData")):
        # The key becomes the name of a file, so it must not be a path.
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
