"""Where rows are: a local file, or one that fsspec copies into the run's folder, once for all attempts.

The copy is what makes a resumed run see the rows it began with, and what lets rows be read in any order.
"""

import contextlib
import errno
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rft_trainer import files
from rft_trainer.errors import ConfigurationError, DataError, Preempted, TrainerError, VolumeError

log = logging.getLogger(__name__)

CREDENTIALS = {
    "s3": "run under a service account with a role that may read it (spec.template.serviceAccountName)",
    "gs": "run under a service account with a role that may read it (spec.template.serviceAccountName)",
    "hf": "name a token's Secret in spec.model.secretRef",
}
"""What lets a pod read a private source, by the scheme of its URI."""

_PRIVATE = re.compile(r"(?<=://)[^/@\s]*@|\?[^\s'\"]*")
_KEPT_FREE = 64 << 20
"""Bytes of the volume that a copy leaves for the first checkpoint."""


def local_file(source: str, folder: Path, should_stop: Callable[[], bool]) -> Path:
    """Return the local file of a path or URI; what is remote is copied into ``folder`` where it is not yet.

    Raises DataError, ConfigurationError, VolumeError; Preempted while it copies; TrainerError for what may
    pass. No message has a URI's user, password or query in it, where signatures are.
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
    """Forget the copies: the next attempt reads the sources again."""
    shutil.rmtree(folder, ignore_errors=True)


def shown(text: str) -> str:
    """Return a URI, or a message with one, without user, password and query."""
    return _PRIVATE.sub("", text)


@contextlib.contextmanager
def readable(file: str | Path) -> Iterator[None]:
    """Turn what goes wrong with a local file into the errors of a run."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise DataError(f"{file}: no such file") from error
    except PermissionError as error:
        raise DataError(f"{file}: permission denied") from error
    except OSError as error:  # a network volume: another attempt may fare better
        raise TrainerError(f"{file}: cannot be read: {error}") from error


@contextlib.contextmanager
def reading(source: str) -> Iterator[None]:
    """Turn what a dozen storages raise into the errors of a run."""
    try:
        yield
    except TrainerError:
        raise
    except Exception as error:  # each library has a tree of its own
        raise _error_of(source, _cause(source, error)) from None  # the chain would show the query


def _cause(source: str, error: BaseException) -> BaseException:
    """Return what went wrong: fsspec calls every failure over HTTP a file that is not found."""
    over_http = source.startswith(("http://", "https://"))
    return error.__cause__ if over_http and error.__cause__ is not None else error


def _error_of(source: str, error: BaseException) -> TrainerError:
    """Tell what fails again from what may pass."""
    name, said = shown(source), shown(f"{error}" or type(error).__name__)
    status = _http_status(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return VolumeError(f"{name}: its copy does not fit on the volume of the run: enlarge spec.storage")
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
    """Return the status that a server answered with, wherever its library puts it."""
    places = (error, "status"), (getattr(error, "response", None), "status_code"), (error, "code")
    found = next((getattr(holder, name) for holder, name in places if hasattr(holder, name)), None)
    return int(str(found)) if str(found).isdigit() else None


def _remedy(source: str) -> str:
    hint = CREDENTIALS.get(source.partition("://")[0])
    return f": {hint}" if hint else ""


def _copied(source: str, system: Any, path: str, folder: Path, should_stop: Callable[[], bool]) -> Path:
    """Return the copy of a remote file, made by this attempt or an earlier one."""
    target, about = folder / "rows.jsonl", folder / "source.json"
    before = _saved(about)
    if target.exists() and before is not None and before.get("source") == shown(source):
        return target
    known = system.info(path)
    if known.get("type") == "directory":
        raise DataError(f"{shown(source)}: is a folder; name a JSONL file")
    size = known.get("size")
    _needs_room(folder, size)
    log.info("copying %s%s", shown(source), f", {size >> 20} MiB" if size else "")
    with files.new_file(target) as unfinished:
        system.get_file(path, str(unfinished), callback=_watched(should_stop))
        found = unfinished.stat().st_size
        if size is not None and found != size:
            raise TrainerError(f"{shown(source)}: {found} bytes came, and there are {size}")
    tag = known.get("ETag") or known.get("etag")
    files.write_json(about, {"source": shown(source), "bytes": found, "etag": tag})
    return target


def _saved(about: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(about.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _needs_room(folder: Path, size: int | None) -> None:
    """Raise VolumeError where the copy does not fit: before an hour of copying, not after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise VolumeError(f"{folder}: {error}") from error
    if size is not None and size + _KEPT_FREE > free:
        raise VolumeError(
            f"{folder}: {free >> 20} MiB are free, and the dataset's copy takes {size >> 20}: enlarge the"
            " volume (spec.storage), or put the rows on a claim (spec.dataset.persistentVolumeClaim)"
        )


def _watched(should_stop: Callable[[], bool]) -> Any:
    """Return what fsspec calls after each piece of a copy."""
    from fsspec.callbacks import Callback  # type: ignore[import-untyped]

    class Stopping(Callback):  # type: ignore[misc]
        def call(self, *_arguments: Any, **_named: Any) -> None:
            if should_stop():
                raise Preempted("asked to stop while the dataset was copied")

    return Stopping()
