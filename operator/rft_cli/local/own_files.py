"""Converts a manifest that names files on the user's machine into a manifest that a cluster accepts.

The field ``python.file``, a path of grader code, exists only for ``rft``. This module replaces it by a
ConfigMap with the code. It also rewrites the paths of datasets and models to a form that the API accepts. For
``rft submit``, it puts each file with rows into a ConfigMap.
"""

import ast
import base64
import copy
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rft_api.loader import Document
from rft_cli.errors import INVALID, UNREADABLE, UserError

CONFIG_MAP_BYTES = 1_000_000
"""Maximum total size in bytes of the files in one ConfigMap. Kubernetes allows 1 MiB with the keys."""

_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_LONGEST_NAME = 253
_DATASETS = (("spec.dataset", ("dataset",)), ("spec.evaluation.dataset", ("evaluation", "dataset")))


Folders = Sequence[Path]
"""Folders on this machine whose files may be sent to a cluster."""


class Local(NamedTuple):
    """A file on the user's machine that a manifest names, and the field of the manifest that names it."""

    field: str
    path: Path

    def refuse_outside(self, folders: Folders | None) -> None:
        """Raise UserError if the file is outside of all ``folders``, so it must not be sent to a cluster.

        Otherwise a stranger's manifest could send a file such as ~/.ssh/id_rsa. ``folders`` None: nothing is
        sent to a cluster, so every file is allowed.
        """
        if folders is not None and not any(self.path.is_relative_to(folder) for folder in folders):
            raise UserError(
                f"{self.field}: {self.path} is outside of {', '.join(map(str, folders))}, so it is not sent"
                f" to the cluster; to send it, add --send-files-from {self.path.parent}",
                INVALID,
            )

    def read(self) -> bytes:
        """Return the content of the file. Raises UserError if the file does not exist or cannot be read."""
        if not self.path.is_file():
            raise UserError(f"{self.field}: {self.path} is not a file; name one that exists", UNREADABLE)
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise UserError(f"{self.field}: {self.path} cannot be read: {error}", UNREADABLE) from error


def with_code(documents: Iterable[Document], folder: Path, allowed: Folders | None = None) -> list[Document]:
    """Return the Kubernetes objects ``documents``, in which jobs refer to a ConfigMap instead of a
    ``python.file``. Each new ConfigMap follows its job.

    The ConfigMap has the file, and the modules in the same folder that the file's code imports. Paths of
    existing datasets and models get the form that the API accepts.

    - ``folder``: the folder to which relative paths in the documents refer
    - ``allowed``: the folders whose files may be sent to a cluster; None: nothing is sent

    Raises:
        UserError: if a file does not exist, may not be sent to the cluster, or is too large for a ConfigMap,
            or if the file's name cannot be a key of a ConfigMap.
    """
    found: list[Document] = []
    for source, body in documents:
        spec = body.get("spec")
        if not isinstance(spec, dict) or "kind" not in body:
            found.append(Document(source, body))
            continue
        changed = copy.deepcopy(body)
        added = list(_code_maps(source, changed, folder, allowed))
        _write_paths(changed["spec"], folder)
        found += [Document(source, changed), *added]
    return found


def _code_maps(
    source: str, body: dict[str, Any], folder: Path, allowed: Folders | None
) -> Iterator[Document]:
    """Replace each grader's ``python.file`` in the job ``body`` by a reference to a new ConfigMap. Yield the
    new ConfigMaps.

    A ConfigMap has the file, and the modules in the same folder that the file's code imports. Raises
    UserError if a file cannot be read, or may not be sent to the cluster.
    """
    graders = body["spec"].get("graders")
    for i, grader in enumerate(graders if isinstance(graders, list) else []):
        python = grader.get("python") if isinstance(grader, dict) else None
        if not isinstance(python, dict) or "file" not in python:
            continue
        field = f"spec.graders[{i}].python"
        others = [name for name in ("inline", "configMap") if name in python]
        if others:
            said = f"needs exactly one of file, inline, configMap; file, {', '.join(others)} are set"
            raise UserError(f"{source}: {field}: {said}", INVALID)
        name = python.pop("file")
        if not isinstance(name, str) or not name:
            raise UserError(
                f"{source}: {field}.file: {name!r} is not a path; write one such as reward.py", INVALID
            )
        code = Local(f"{field}.file", path_of(name, folder))
        code.refuse_outside(allowed)
        contents = {
            path.name: Local(code.field, path).read() for path in [code.path, *_imported(code, allowed)]
        }
        made = config_map(body, f"{grader.get('name', i)}-code", contents, code.field)
        python["configMap"] = {"name": made["metadata"]["name"], "key": code.path.name}
        yield Document(f"{source}, {field}.file", made)


def path_of(name: str, folder: Path) -> Path:
    """Return the absolute path of ``name``, a path in a manifest. A relative path refers to ``folder``.

    ``~`` at the beginning is replaced by the home folder.
    """
    try:
        return (folder / Path(name).expanduser()).resolve()
    except RuntimeError:  # there is no such user
        return (folder / name).resolve()


def model_name(name: str) -> str:
    """Return the absolute path of the model ``name`` if it is a folder on this machine. Otherwise return
    ``name`` unchanged.

    A name with a slash, such as ``a/b``, may be a name on the hub. So it counts as a folder only if it begins
    with ``./``, ``../``, ``/`` or ``~``.
    """
    folder = Path(name).expanduser()
    is_path = "/" not in name or name.startswith(("~", "./", "../", "/"))
    return str(folder.resolve()) if is_path and folder.is_dir() else name


def _imported(code: Local, allowed: Folders | None) -> list[Path]:
    """Return the paths of the modules that the code imports and that are in the same folder. Modules that
    other such modules import are included.

    The code is parsed, and never run. Raises UserError if a module is a link to a file outside of the folders
    ``allowed``.
    """
    found: list[Path] = []
    pending = [code.path]
    while pending:
        path = pending.pop()
        for name in _module_names(Local(code.field, path).read()):
            beside = code.path.with_name(f"{name}.py")
            if beside != code.path and beside not in found and beside.is_file():
                Local(code.field, beside.resolve()).refuse_outside(allowed)
                found.append(beside)
                pending.append(beside)
    return sorted(found)


def _module_names(source: bytes) -> set[str]:
    """Return the names of all modules that Python code imports, each only up to its first dot. The code in
    ``source`` is not run.

    Return an empty set if the code cannot be parsed.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()  # a later check of the grader's code reports the error
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            relative = node.level == 1 and node.module is None
            names |= {a.name for a in node.names} if relative else {(node.module or "").partition(".")[0]}
    return {name for name in names if name.isidentifier()}


def config_map(
    job: Mapping[str, Any], suffix: str, contents: Mapping[str, bytes], field: str
) -> dict[str, Any]:
    """Return the manifest of an immutable ConfigMap with files of a job.

    - ``suffix``: the end of the ConfigMap's name, before a digest of the files
    - ``contents``: the content of each file, by the file's name, which is the key in the ConfigMap
    - ``field``: the field of the manifest that names the files, for error messages

    Changed files have another digest, so they get a new ConfigMap. The files of a running job stay unchanged.

    Raises:
        UserError: if a file's name cannot be a key, or the files are too large.
    """
    given = job.get("metadata")
    metadata: dict[str, Any] = given if isinstance(given, dict) else {}
    for key in contents:
        if not _KEY.fullmatch(key):
            raise UserError(
                f"{field}: {key!r} cannot be the key of a ConfigMap; use only letters, digits, -, _ and . in"
                f" the file's name, such as {re.sub(r'[^-._a-zA-Z0-9]+', '-', key)}",
                INVALID,
            )
    size = sum(map(len, contents.values()))
    if size > CONFIG_MAP_BYTES:
        raise UserError(
            f"{field}: {', '.join(contents)} is {size:,} bytes, and a ConfigMap may have at most"
            f" {CONFIG_MAP_BYTES:,}; put it on a volume (persistentVolumeClaim) or at an address (uri)",
            INVALID,
        )
    digest = hashlib.sha256(b"".join(key.encode() + b"\0" + contents[key] for key in contents)).hexdigest()
    name = re.sub(r"[^a-z0-9]+", "-", f"{metadata.get('name', 'job')}-{suffix}".lower()).strip("-")
    made_metadata: dict[str, Any] = {"name": f"{name[: _LONGEST_NAME - 9]}-{digest[:8]}"}
    if isinstance(metadata.get("namespace"), str):
        made_metadata["namespace"] = metadata["namespace"]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": made_metadata,
        "immutable": True,
        **_data(contents),
    }


def _data(contents: Mapping[str, bytes]) -> dict[str, dict[str, str]]:
    """Return the fields ``data`` and ``binaryData`` of a ConfigMap with these contents. Contents that are not
    UTF-8 are in ``binaryData``, as base64.
    """
    texts: dict[str, str] = {}
    others: dict[str, str] = {}
    for key, content in contents.items():
        try:
            texts[key] = content.decode()
        except UnicodeDecodeError:
            others[key] = base64.b64encode(content).decode()
    return {name: data for name, data in (("data", texts), ("binaryData", others)) if data}


def _write_paths(spec: dict[str, Any], folder: Path) -> None:
    """Rewrite the paths of the datasets and the model in ``spec`` to a form that the API accepts.

    A dataset's relative path gets ``./`` before it. A path with ``~``, and a relative path of the model,
    become absolute. Paths that do not exist on this machine are not changed. Relative paths refer to
    ``folder``.
    """
    for _, dataset in _datasets(spec):
        uri = dataset.get("uri")
        if isinstance(uri, str) and uri and uri[0] not in "./" and "://" not in uri:
            path = path_of(uri, folder)
            if path.is_file():
                dataset["uri"] = str(path) if uri.startswith("~") else f"./{uri}"
    model = spec.get("model")
    name = model.get("name") if isinstance(model, dict) else None
    if isinstance(model, dict) and isinstance(name, str) and name.startswith(("~", "./", "../")):
        path = path_of(name, folder)
        if path.is_dir():
            model["name"] = str(path)


def _datasets(spec: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for field, keys in _DATASETS:
        value: Any = spec
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, dict):
            yield field, value


def with_rows(document: Document, folder: Path, allowed: Folders) -> list[Document]:
    """Return the job ``document`` in the form for a cluster: each file with rows that a dataset's ``uri``
    names is put into a ConfigMap, and the job refers to this ConfigMap.

    The ConfigMaps are before the job in the result. Two kinds of paths are not changed: a path on a volume of
    ``spec.template.volumes``, and an absolute path that does not exist on this machine.

    - ``folder``: the folder to which relative paths refer
    - ``allowed``: the folders whose files may be sent to the cluster

    Raises:
        UserError: if a file is missing, in no folder of ``allowed``, or too large for a ConfigMap.
    """
    body = copy.deepcopy(document.body)
    spec = body.get("spec") or {}
    added: list[Document] = []
    for field, dataset in _datasets(spec):
        uri = dataset.get("uri")
        if not isinstance(uri, str) or not uri.startswith((".", "/", "file://")):
            continue
        written = uri.removeprefix("file://")
        rows = Local(f"{field}.uri", path_of(written, folder))
        if written.startswith("/") and (_on_a_volume(spec, written) or not rows.path.exists()):
            continue
        rows.refuse_outside(allowed)
        made = config_map(body, f"{field.split('.')[1]}-rows", {rows.path.name: rows.read()}, rows.field)
        added.append(Document(f"{document.source}, {rows.field}", made))
        del dataset["uri"]
        dataset["configMap"] = {"name": made["metadata"]["name"], "key": rows.path.name}
    return [*added, Document(document.source, body)]


def _on_a_volume(spec: Mapping[str, Any], path: str) -> bool:
    """Return whether ``path`` is below the mount path of a volume in ``spec.template.volumes``, which the job
    adds to its pod.
    """
    template = spec.get("template")
    volumes = template.get("volumes") if isinstance(template, dict) else None
    mounted = [each.get("mountPath") for each in volumes or [] if isinstance(each, dict)]
    return any(isinstance(each, str) and path.startswith(f"{each.rstrip('/')}/") for each in mounted)
