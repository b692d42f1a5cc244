"""Finds the programs that the benchmark needs, in ``KUBEBUILDER_ASSETS`` or on the PATH."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
KWOK = "kwok"
KUEUE = "kueue"
CHART = "RFT_KUEUE_CHART"


class Missing(Exception):
    """A program was not found. The message names the program, and says how to set its path."""


def found(names: Iterable[str]) -> dict[str, Path]:
    """Return the path of each program.

    Raises:
        Missing: a program is not found.
    """
    folder = os.environ.get("KUBEBUILDER_ASSETS")
    where = os.pathsep.join(filter(None, (folder, os.environ.get("PATH"))))
    paths = {name: shutil.which(name, path=where) for name in names}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        raise Missing(
            f"{', '.join(missing)}: not found in KUBEBUILDER_ASSETS ({folder or 'not set'}) nor on the "
            f"PATH. A fleet needs {', '.join(PLANE)} of one release of Kubernetes, {KWOK}, and {KUEUE} "
            "for queued jobs (--queued 0 leaves them out)"
        )
    return {name: Path(path) for name, path in paths.items() if path is not None}


def chart() -> Path:
    """Return the path of Kueue's chart.

    Raises:
        Missing: RFT_KUEUE_CHART is not the path of a file.
    """
    named = os.environ.get(CHART)
    if not named or not Path(named).is_file():
        raise Missing(
            f"{CHART} must be the path of Kueue's chart, which queued jobs need (--queued 0 leaves them out)"
        )
    return Path(named)
