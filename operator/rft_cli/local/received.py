"""Copies the files of a run's folder from a cluster to this machine, for ``rft download``. A copy that was
interrupted is continued.

The content of a file is first written into a partial file. The name of a partial file is the SHA-256 digest
of the complete file. So a partial file is continued only with bytes of the same content. If several files
have the same content, the content is sent only once.
"""

import hashlib
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_run import atomic, run_files
from rft_run.listing import FileEntry

PARTIAL = ".rft-download"
"""Name of the subfolder for partial files, in the folder of the download."""
ROUNDS = 3
"""Maximum number of attempts to copy the files. Another attempt is needed if a file of a running job changes
while it is sent."""
_CHUNK = 1 << 20


class Source(Protocol):
    """The sender of a download: it lists the files of a run's folder, and sends their content."""

    def files(self, patterns: Sequence[str]) -> list[FileEntry]:
        """Return the files of the run's folder whose path matches at least one of ``patterns``, in the form
        of ``fnmatch``.
        """

    def content(self, wanted: Sequence[tuple[FileEntry, int]]) -> Generator[tuple[int, bytes], None, None]:
        """Yield the content of the files in ``wanted`` in pieces. A piece is the index of a file in
        ``wanted``, and the next bytes of this file.

        ``wanted`` has each file with an offset in bytes. The bytes before this offset are not yielded.
        """


class Transferred(NamedTuple):
    """The result of a download by ``receive``."""

    files: int
    """Number of files that are complete on this machine now."""
    size: int
    """Total size of these files in bytes."""
    sent: int
    """Number of bytes that this download has sent. Files that were here before are not counted."""


Progress = Callable[[int, int], None]
"""A function that shows the progress of a download. It gets the number of bytes that are on this machine
already, and the number of bytes of all files."""


def receive(
    source: Source,
    patterns: Sequence[str],
    folder: Path,
    progress: Progress = lambda _here, _all: None,
) -> Transferred:
    """Copy the files of ``source`` whose path matches at least one of ``patterns`` (as in ``fnmatch``) into
    ``folder``.

    Files that are complete in ``folder`` are not sent again. Errors of ``source`` are raised too.

    Raises:
        UserError: if a file still differs from its digest after ``ROUNDS`` attempts, or cannot be written.
    """
    sent = 0
    for _ in range(ROUNDS):
        entries = source.files(patterns)
        with _explained(folder):
            missing = _by_digest(entry for entry in entries if not _is_here(folder, entry))
            parts = [_part(folder, same[0]) for same in missing.values()]
        size = sum(entry.size for entry in entries)
        here = size - sum(entry.size for same in missing.values() for entry in same)

        def more(number: int, here: int = here, size: int = size) -> None:
            progress(here + number, size)

        sent += _fetch(
            source, [(same[0], part) for same, part in zip(missing.values(), parts, strict=True)], more
        )
        with _explained(folder):
            changed = [same for same in missing.values() if not _placed(folder, same)]
        if not changed:
            _remove_partial(folder)
            return Transferred(len(entries), size, sent)
    names = ", ".join(same[0].path for same in changed[:3])
    raise UserError(
        f"{names}: changed during each attempt to send it, so the copy here is not complete; try again when"
        " the job"
        " has ended",
        INVALID,
    )


def _fetch(source: Source, wanted: list[tuple[FileEntry, Path]], more: Callable[[int], None]) -> int:
    """Get the missing bytes of each file from ``source``, and append them to the partial file. Return the
    number of bytes that were sent.

    - ``wanted``: each file with the path of its partial file
    - ``more``: is called again and again with the number of bytes that all partial files have together
    """
    if not wanted:
        return 0
    offsets = [part.stat().st_size for _, part in wanted]
    sent, begun = 0, sum(offsets)
    more(begun)
    asked = [(entry, offset) for (entry, _), offset in zip(wanted, offsets, strict=True)]
    # The generator is closed also after an error, because it closes the connection to the pod.
    with closing(source.content(asked)) as pieces:
        for index, piece in pieces:
            part = wanted[index][1]
            with _explained(part), run_files.writable(part) as file:
                file.write(piece)
            sent += len(piece)
            more(begun + sent)
    return sent


def _by_digest(entries: Iterator[FileEntry]) -> Mapping[str, list[FileEntry]]:
    found: dict[str, list[FileEntry]] = {}
    for entry in entries:
        found.setdefault(entry.sha256, []).append(entry)
    return found


def _is_here(folder: Path, entry: FileEntry) -> bool:
    """Return whether ``folder`` has the complete file for ``entry``: a regular file with the same size and
    digest.
    """
    path = folder / entry.path
    return run_files.is_own(path) and path.stat().st_size == entry.size and digest_of(path) == entry.sha256


def digest_of(path: Path) -> str:
    """Return the SHA-256 digest of a file as hexadecimal digits.

    Raises UnreadableFile if the file is not a regular file, and OSError.
    """
    digest = hashlib.sha256()
    with run_files.opened(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _part(folder: Path, entry: FileEntry) -> Path:
    """Return the path of the partial file for the content of ``entry``.

    The partial file is created if it is missing, and emptied if it is longer than the complete file.
    """
    part = folder / PARTIAL / entry.sha256
    part.parent.mkdir(parents=True, exist_ok=True)
    run_files.refuse_link(part.parent)
    with run_files.writable(part) as file:
        if file.tell() > entry.size:
            file.truncate(0)
    return part


def _placed(folder: Path, same: Sequence[FileEntry]) -> bool:
    """Check a partial file, and move or copy it to the paths of all entries in ``same``, which have equal
    content. Return True.

    If the partial file does not have the digest of the entries, remove it and return False.
    """
    part = folder / PARTIAL / same[0].sha256
    if digest_of(part) != same[0].sha256:
        part.unlink()
        return False
    for entry in same[1:]:
        shutil.copyfile(part, _free(folder, entry.path))
    atomic.put(part, _free(folder, same[0].path))
    return True


def _free(folder: Path, path: str) -> Path:
    """Prepare the place for a file of the download: create its folder, and remove an old file at its path.
    Return the path, which is ``folder`` joined with ``path``.

    Raises UnreadableFile if a folder in ``path`` is a symbolic link.
    """
    target = folder / path
    for parent in reversed(target.relative_to(folder).parents[:-1]):
        run_files.refuse_link(folder / parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    return target


def _remove_partial(folder: Path) -> None:
    """Remove the subfolder of partial files. Some of them may have content that the run no longer has."""
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Convert an error of the ``with`` block, which reads or writes files on this machine, into a UserError.
    The message names ``path`` or the file of the error.
    """
    try:
        yield
    except run_files.UnreadableFile as error:
        raise UserError(f"{path}: {error}", UNREADABLE) from error
    except OSError as error:
        name = error.filename or path
        raise UserError(f"{name}: cannot be written: {error.strerror}", UNREADABLE) from error
