"""The code of a release: of this checkout, or of another commit of this repository."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Release:
    """A release: its name in the table, and the folder with its packages, its CRD and its chart."""

    name: str
    folder: Path

    @property
    def python_path(self) -> str:
        """Value of PYTHONPATH with which Python imports the packages of this release."""
        return os.pathsep.join((str(self.folder / "operator"), str(self.folder / "trainer-image")))

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of processes that run this release."""
        return {**os.environ, "PYTHONPATH": self.python_path}

    @property
    def crd(self) -> Path:
        """The CRD of this release."""
        return self.folder / "crds" / "rftjobs.rft.dev.yaml"

    @property
    def chart(self) -> Path:
        """The Helm chart of this release."""
        return self.folder / "charts" / "rft-operator"

    def rft(self, *arguments: str | Path) -> Sequence[str]:
        """Return a command that runs ``rft`` of this release, if its process has ``environment``."""
        code = "from rft_cli.main import app; app()"
        return [sys.executable, "-c", code, *map(str, arguments)]


def this_release() -> Release:
    """Return the release of this checkout."""
    return Release("this", ROOT)


def release_of(commit: str, folder: Path) -> Release:
    """Write packages, CRD and chart of ``commit`` into ``folder`` and return the release.

    Raises:
        subprocess.CalledProcessError: this repository does not have the commit.
    """
    folder.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "archive", commit, "operator", "trainer-image", "crds", "charts"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    subprocess.run(["tar", "--extract", "--directory", folder], input=archive.stdout, check=True)
    return Release(commit[:12], folder)
