"""Which image archives the running cluster has been given."""

import hashlib
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.shell import ClusterError, say


class LoadedImages:
    """Marks in a folder that goes with the cluster: one empty file an archive, named by its contents."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def once(self, archive: Path) -> Iterator[bool]:
        """Yield whether the archive has to be loaded; mark it as loaded where the block succeeds.

        Raises:
            ClusterError: there is no such file, or it is no archive of images.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        mark = self._folder / f"{archive.stem}-{_contents(archive)}"
        if mark.exists():
            say(f"{archive.name} is loaded already")
            yield False
            return
        started = time.monotonic()
        yield True
        for older in self._folder.glob(f"{archive.stem}-*"):  # its name has just been taken over
            older.unlink()
        mark.touch()
        say(f"loaded {archive.name} in {time.monotonic() - started:.0f} s")


def _contents(archive: Path) -> str:
    """Digest of the list of an archive's images, which names every configuration and layer."""
    try:
        with tarfile.open(archive) as tar:
            names = tar.getnames()
            listing = tar.extractfile("manifest.json" if "manifest.json" in names else "index.json")
            assert listing is not None, "both are regular files"
            return hashlib.sha256(listing.read()).hexdigest()
    except (OSError, KeyError, tarfile.ReadError) as error:
        raise ClusterError(f"{archive} is no image archive: {error}") from error
