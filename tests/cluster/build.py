"""Builds the Kubernetes programs from Debian's source package once, and caches them.

The source package contains all dependencies, so the build needs no Go module proxy. The build takes about
seven minutes on two idle cores, and 3 GB of disk space. 400 MB remain in the cache.
"""

import os
import re
import shutil
import time
from pathlib import Path

from tests.cluster.packages import BUILD, ensure_packages, private_lists
from tests.cluster.shell import (
    ClusterError,
    locked,
    run,
    run_contained,
    say,
    scratch,
    staged,
    tail,
)

BINARIES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")

# The last release of Debian with the source of kube-apiserver and kubelet. The version of its package is
# "1.20.5+really1.20.2".
SUITE = "bookworm"
VERSION = "v1.20.2"
RECIPE = 2  # increase this when the build commands change: then older builds in a cache are not used

# reflect2 before 1.0.2 depends on a memory layout of maps that Go 1.18 changed: an API server built with it
# sometimes crashes on a custom resource. Debian has the newer version in a separate package.
REFLECT2 = "github.com/modern-go/reflect2"
PACKAGED_GO_SOURCES = Path("/usr/share/gocode/src")


def kubernetes_binaries(cache: Path) -> Path:
    """Return the folder with ``BINARIES``. Build the binaries first if they are not in the cache.

    Raises:
        ClusterError: the source cannot be downloaded or does not build.
    """
    target = cache / f"kubernetes-{VERSION}-{RECIPE}-{os.uname().machine}"
    with locked(cache / "kubernetes.lock"):
        if not target.exists():
            ensure_packages(BUILD)
            _build(target)
    return target


def missing_binaries(folder: Path) -> list[str]:
    """Return the names of the ``BINARIES`` that ``folder`` does not have."""
    return [name for name in BINARIES if not os.access(folder / name, os.X_OK)]


def server_binaries(cache: Path) -> Path:
    """Return ``KUBEBUILDER_ASSETS`` if this folder has all binaries, else ``kubernetes_binaries(cache)``."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and not missing_binaries(Path(assets)):
        return Path(assets)
    return kubernetes_binaries(cache)


def etcd_program(folder: Path) -> Path:
    """Return the path of etcd in ``folder``. If there is none, return the path of Debian's etcd."""
    return folder / "etcd" if os.access(folder / "etcd", os.X_OK) else Path("etcd")


def minor_version(binaries: Path) -> int:
    """Return the minor version of the API server, e.g. 20 for Kubernetes 1.20.

    Raises:
        ClusterError: the API server does not print its version.
    """
    version = run(binaries / "kube-apiserver", "--version")
    found = re.search(r"v1\.(\d+)\.", version)
    if found is None:
        raise ClusterError(f"the output of kube-apiserver --version has no version number: {version!r}")
    return int(found[1])


def _build(target: Path) -> None:
    started = time.monotonic()
    with staged(target) as binaries, scratch(target.with_name("kubernetes-build")) as work:
        log = target.with_name("kubernetes-build.log")
        log.unlink(missing_ok=True)
        source = work / "go/src/k8s.io/kubernetes"
        say(f"building Kubernetes {VERSION} from Debian's source, only this once; output in {log}")
        _unpack_source(work, source, log)
        environment = {
            "GOPATH": str(work / "go"),
            "GOCACHE": str(work / "go-cache"),
            "GO111MODULE": "off",
            "GOFLAGS": "",
            "CGO_ENABLED": "0",
            "PATH": f"/usr/lib/go/bin:/usr/sbin:/usr/bin:{os.environ['PATH']}",
        }
        run_contained(["make", "generated_files"], log, environment, source)
        packages = [f"./cmd/{name}" for name in BINARIES]
        build = ["go", "build", "-ldflags", _version_flags(), "-o", f"{binaries}/", *packages]
        run_contained(build, log, environment, source)
        if missing := missing_binaries(binaries):
            raise ClusterError(f"the build did not create {', '.join(missing)}:\n{tail(log)}")
    say(f"built Kubernetes in {time.monotonic() - started:.0f} s: {target}")


def _unpack_source(work: Path, source: Path, log: Path) -> None:
    options = private_lists(work, "deb-src", SUITE)
    run("apt-get", *options, "source", "--download-only", "kubernetes", cwd=work)
    (description,) = work.glob("kubernetes_*.dsc")
    source.parent.mkdir(parents=True)
    run_contained(["dpkg-source", "--no-check", "--extract", description, source], log, {}, work)
    vendored = source / "vendor" / REFLECT2
    shutil.rmtree(vendored)
    shutil.copytree(PACKAGED_GO_SOURCES / REFLECT2, vendored)


def _version_flags() -> str:
    major, minor, _ = VERSION.removeprefix("v").split(".")
    values = {"gitVersion": VERSION, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    settings = [
        f"-X k8s.io/kubernetes/vendor/k8s.io/{package}.{name}={value}"
        for package in ("component-base/version", "client-go/pkg/version")
        for name, value in values.items()
    ]
    return " ".join(["-s -w", *settings])
