"""Prints the part of the lock file that an installation needs, so that pip compares every file with its hash.

    python scripts/hashed.py REPORT HASHES

``REPORT`` is what ``pip install --dry-run --report`` writes, and ``HASHES`` is constraints-hashes.txt. pip
checks hashes only if every requirement has a version and a hash.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

Version = tuple[str, str]
"""The normalized name of a package, and its version."""


def locked(text: str) -> dict[Version, str]:
    """Return the entries of a lock file: each package and version, with the lines of its entry."""
    entries = re.findall(r"^(([\w.-]+)==(\S+)[^\n]*(?:\n +[^\n]*)*)", text, re.MULTILINE)
    return {(normalized(name), version): lines for lines, name, version in entries}


def planned(report: str) -> Iterator[Version]:
    """Yield the packages and versions that pip would install."""
    for item in json.loads(report)["install"]:
        yield normalized(item["metadata"]["name"]), item["metadata"]["version"]


def normalized(name: str) -> str:
    """Return the normalized name of a package, as package indexes spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def selected(wanted: Iterable[Version], lock: dict[Version, str]) -> list[str]:
    """Return the entries of the lock file for the wanted packages.

    Raises:
        LookupError: if the lock file has no entry for some of them. The message names these packages.
    """
    versions = list(wanted)
    missing = [f"{name}=={version}" for name, version in versions if (name, version) not in lock]
    if missing:
        raise LookupError(f"constraints-hashes.txt lacks {', '.join(missing)}; run make lock")
    return [lock[version] for version in versions]


def main() -> None:
    """Print the entries of the lock file that the installation needs.

    Exit with a message if the lock file lacks an entry.
    """
    report, hashes = (Path(argument).read_text(encoding="utf-8") for argument in sys.argv[1:3])
    try:
        print("\n".join(selected(planned(report), locked(hashes))))
    except LookupError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
