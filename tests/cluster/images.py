"""Records which image archives are loaded into the running cluster."""

import hashlib
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.shell import ClusterError, say


class LoadedImages:
    """Records in a folder which image archives the cluster has loaded.

    The folder has one empty file for each archive. The name of the file contains a digest of the archive's
    contents.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def once(self, archive: Path) -> Iterator[bool]:
        """Yield true if the archive is not loaded yet. The caller then loads it in the ``with`` block.

        If the block succeeds, record the archive as loaded.

        Raises:
            ClusterError: the archive does not exist, or is not an image archive.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        mark = self._folder / f"{archive.stem}-{_contents(archive)}"
        if mark.exists():
            say(f"{archive.name} is loaded already")
            yield False
            return
        started = time.monotonic()
        yield True
        for older in self._folder.glob(f"{archive.stem}-*"):  # their images have just been replaced
            older.unlink()
        mark.touch()
        say(f"loaded {archive.name} in {time.monotonic() - started:.0f} s")


def _contents(archive: Path) -> str:
    """Return a digest of an archive's list of images, which contains the digests of all layers."""
    try:
        with tarfile.open(archive) as tar:
            names = tar.getnames()
            listing = tar.extractfile("manifest.json" if "manifest.json" in names else "index.json")
            assert listing is not None, "manifest.json and index.json must be regular files"
            return hashlib.sha256(listing.read()).hexdigest()
    except (OSError, KeyError, tarfile.ReadError) as error:
        raise ClusterError(f"{archive} is not an image archive: {error}") from error
