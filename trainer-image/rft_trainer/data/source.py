"""Finds the local file of a dataset. A remote file is copied once per run into the run's folder, by fsspec.

So a resumed run reads the same rows, and rows can be read in any order.
"""

import contextlib
import errno
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rft_run import run_files
from rft_run.errors import ConfigurationError, DataError, Preempted, TrainerError, VolumeError
from rft_trainer import files

log = logging.getLogger(__name__)

CREDENTIALS = {
    "s3": "run under a service account with a role that may read it (spec.template.serviceAccountName)",
    "gs": "run under a service account with a role that may read it (spec.template.serviceAccountName)",
    "hf": "set spec.model.secretRef to a Secret with a token",
}
"""For each URI scheme, advice on how a pod gets access to a private source."""

_PRIVATE = re.compile(r"(?<=://)[^/@\s]*@|\?[^\s'\"]*")
_KEPT_FREE = 64 << 20
"""Number of bytes that must stay free on the volume after a copy, for the first checkpoint."""


def local_file(source: str, folder: Path, should_stop: Callable[[], bool]) -> Path:
    """Return the local file of a dataset. If ``source`` is a remote URI, copy the file into ``folder`` first.

    An existing copy is used again. Messages show URIs without user, password and query, which may be secret.

    Raises:
        DataError: the remote file does not exist, or permission is denied.
        ConfigurationError: the URI is invalid, or a library or credentials are missing.
        VolumeError: the volume has no room for the copy.
        Preempted: the run should stop during a copy.
        TrainerError: any other failure. It may be temporary.
    """
    if "://" not in source:
        return Path(source)
    with reading(source):
        import fsspec  # type: ignore[import-untyped]
        from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

        system, path = fsspec.core.url_to_fs(source)
        if isinstance(system, LocalFileSystem):
            return Path(path)
        return _copied(source, system, path, folder, should_stop)


def discard(folder: Path) -> None:
    """Remove ``folder`` with its copies of remote files, so that the next attempt reads the sources again."""
    shutil.rmtree(folder, ignore_errors=True)


def shown(text: str) -> str:
    """Return a text without the user, password and query of the URIs in it, because these may be secret."""
    return _PRIVATE.sub("", text)


@contextlib.contextmanager
def readable(file: str | Path) -> Iterator[None]:
    """In the ``with`` block, convert errors of reading a local file into errors that name the file.

    Raises DataError if the file is missing, is not a regular file or may not be read, and TrainerError for
    any other OSError, because a retry may succeed.
    """
    try:
        _refuse_fifo(Path(file))
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise DataError(f"{file}: no such file") from error
    except run_files.UnreadableFile as error:
        raise DataError(f"{file}: {error}") from error
    except PermissionError as error:
        raise DataError(f"{file}: permission denied") from error
    except OSError as error:  # e.g. a network volume: a retry may succeed
        raise TrainerError(f"{file}: cannot be read: {error}") from error


def _refuse_fifo(file: Path) -> None:
    """Raise UnreadableFile if ``file`` is a FIFO or a device: opening or reading it could take forever."""
    with run_files.opened(file, follow=True):
        pass


@contextlib.contextmanager
def reading(source: str) -> Iterator[None]:
    """In the ``with`` block, convert the errors of fsspec's storage libraries into a TrainerError.

    ``source``: the path or URI that is read, for the message of the error.
    """
    try:
        yield
    except TrainerError:
        raise
    except Exception as error:  # each library has its own error classes
        raise _error_of(source, _cause(source, error)) from None  # from None hides the URI's query


def _cause(source: str, error: BaseException) -> BaseException:
    """Return the original error of a failed read of ``source``, a path or URI.

    fsspec reports every HTTP error as FileNotFoundError, whose cause is the original error.
    """
    over_http = source.startswith(("http://", "https://"))
    return error.__cause__ if over_http and error.__cause__ is not None else error


def _error_of(source: str, error: BaseException) -> TrainerError:
    """Return the TrainerError for a failed read of ``source``, a path or URI.

    It is a subclass such as DataError if a retry would fail too. Otherwise it is a plain TrainerError.
    """
    name, said = shown(source), shown(f"{error}" or type(error).__name__)
    status = _http_status(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return VolumeError(
            f"{name}: the copy of this file does not fit on the run's volume: enlarge spec.storage"
        )
    if isinstance(error, ImportError):
        return ConfigurationError(f"{name}: {said} (pip install 'rft-operator[remote-data]')")
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError) or status == 404:
        return DataError(f"{name}: no such file")
    if isinstance(error, PermissionError) or status in (401, 403):
        return DataError(f"{name}: permission denied{_remedy(source)}")
    if "Credential" in type(error).__name__ or "credential" in said.lower():
        return ConfigurationError(f"{name}: {said}{_remedy(source)}")
    if isinstance(error, ValueError):
        return ConfigurationError(f"{name}: {said}")
    return TrainerError(f"{name}: cannot be read: {said}")


def _http_status(error: BaseException) -> int | None:
    """Return the HTTP status that an exception of a storage library has. None: it has no HTTP status."""
    places = (error, "status"), (getattr(error, "response", None), "status_code"), (error, "code")
    found = next((getattr(holder, name) for holder, name in places if hasattr(holder, name)), None)
    return int(str(found)) if str(found).isdigit() else None


def _remedy(source: str) -> str:
    hint = CREDENTIALS.get(source.partition("://")[0])
    return f": {hint}" if hint else ""


def _copied(source: str, system: Any, path: str, folder: Path, should_stop: Callable[[], bool]) -> Path:
    """Return the local copy of a remote file. If an earlier attempt has not copied the file, copy it now.

    - ``source``, ``path``: the URI of the file, and its path in the fsspec file system ``system``.
    - ``folder``: the folder for the copy.
    """
    target, about = folder / "rows.jsonl", folder / "source.json"
    before = _saved(about)
    if run_files.is_own(target) and before is not None and before.get("source") == shown(source):
        return target
    known = system.info(path)
    if known.get("type") == "directory":
        raise DataError(f"{shown(source)}: is a folder; give the path of a JSONL file")
    size = known.get("size")
    _needs_room(folder, size)
    log.info("copying %s%s", shown(source), f", {size >> 20} MiB" if size else "")
    with files.new_file(target) as unfinished:
        system.get_file(path, str(unfinished), callback=_watched(should_stop))
        found = unfinished.stat().st_size
        if size is not None and found != size:
            raise TrainerError(f"{shown(source)}: received {found} of {size} bytes")
    tag = known.get("ETag") or known.get("etag")
    files.write_json(about, {"source": shown(source), "bytes": found, "etag": tag})
    return target


def _saved(about: Path) -> dict[str, Any] | None:
    try:
        found = run_files.json_of(about)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _needs_room(folder: Path, size: int | None) -> None:
    """Create ``folder``. Raise VolumeError if its volume has no room for a copy of ``size`` bytes.

    If ``size`` is None, the size is not known, and the free space is not checked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise VolumeError(f"{folder}: {error}") from error
    if size is not None and size + _KEPT_FREE > free:
        raise VolumeError(
            f"{folder}: {free >> 20} MiB are free, too few for a copy of the dataset ({size >> 20} MiB):"
            " enlarge the volume (spec.storage), or put the rows on a PersistentVolumeClaim"
            " (spec.dataset.persistentVolumeClaim)"
        )


def _watched(should_stop: Callable[[], bool]) -> Any:
    """Return a callback for fsspec, which calls it after each copied block.

    If ``should_stop`` returns True, the callback raises Preempted, and so ends the copy.
    """
    from fsspec.callbacks import Callback  # type: ignore[import-untyped]

    class Stopping(Callback):  # type: ignore[misc]
        def call(self, *_arguments: Any, **_named: Any) -> None:
            if should_stop():
                raise Preempted("asked to stop while the dataset was copied")

    return Stopping()
