"""Finds processes that run in the test cluster's node, among all processes of this machine."""

import os
from collections.abc import Iterator
from pathlib import Path


def processes_with(text: str, *, uid: int | None = None) -> Iterator[int]:
    """Yield this machine's PIDs of processes whose command line contains ``text``."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            owner = folder.stat().st_uid
        except OSError:
            continue
        if text in command and (uid is None or owner == uid) and int(folder.name) != os.getpid():
            yield int(folder.name)
