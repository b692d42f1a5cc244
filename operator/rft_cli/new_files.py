"""Writes the files that a command makes for the user, and never overwrites one with other content."""

from collections.abc import Mapping
from pathlib import Path

from rft_cli.errors import UNREADABLE, UserError
from rft_run import atomic


def write_new(texts: Mapping[Path, str]) -> None:
    """Write text files by their paths, and create their folders. A file that has its text already is kept.

    Raises:
        UserError: if a file exists with other content, and then no file is written. Also if a file cannot be
            read or written.
    """
    try:
        for path, text in texts.items():
            if path.is_dir() or (path.exists() and path.read_bytes() != text.encode()):
                raise UserError(
                    f"{path}: exists with other content; move it away, or name another place", UNREADABLE
                )
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_text(path, text)
    except OSError as error:
        place = error.filename or next(iter(texts))
        raise UserError(f"{place}: cannot be written: {error.strerror or error}", UNREADABLE) from error
