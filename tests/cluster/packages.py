"""Installing the Debian packages that the node and the builds need, or fetching them."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.shell import ClusterError, run, say

RUNTIME = (
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "etcd-server",
    "gcc",
    "iproute2",
    "iptables",
    "libc6-dev",
    "openssl",
    "runc",
)
BUILD = (
    "dpkg-dev",
    "gcc",
    "golang-github-modern-go-reflect2-dev",
    "golang-go",
    "jq",
    "libc6-dev",
    "make",
    "rsync",
)

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR = "http://deb.debian.org/debian"

POLICY = Path("/usr/sbin/policy-rc.d")


def ensure_packages(names: Sequence[str]) -> None:
    """Install what is missing, without starting any of the services that the packages bring.

    Raises:
        ClusterError: this is not a Debian-like system, or apt-get failed.
    """
    if shutil.which("apt-get") is None:
        raise ClusterError(
            "the node needs Debian's packages and this system has no apt-get; "
            "install kind and Docker, or set RFT_TEST_KUBECONFIG"
        )
    missing = [name for name in names if not _installed(name)]
    if not missing:
        return
    say(f"installing the Debian packages {' '.join(missing)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    wait = "--option=DPkg::Lock::Timeout=300"  # another installation may be under way
    run("apt-get", wait, "update", env=quiet)
    with _services_not_started():
        run("apt-get", wait, "install", "--yes", "--no-install-recommends", *missing, env=quiet)


def private_lists(work: Path, kind: str, suite: str) -> list[str]:
    """Fetch package lists of our own into ``work`` and return the options that make apt-get use them.

    The system's lists lack other suites, and may lack the source entries. ``kind`` is ``deb``, which then
    counts no package as installed, or ``deb-src``.

    Raises:
        ClusterError: the lists cannot be fetched.
    """
    lists = work / "lists"
    (lists / "partial").mkdir(parents=True)
    (work / "archives/partial").mkdir(parents=True)
    (work / "status").touch()
    mirror = os.environ.get("RFT_DEBIAN_MIRROR", MIRROR)
    (work / "sources.list").write_text(f"{kind} [signed-by={KEYRING}] {mirror} {suite} main\n")
    options = [
        f"--option=Dir::Etc::SourceList={work / 'sources.list'}",
        "--option=Dir::Etc::SourceParts=/dev/null",
        f"--option=Dir::State::Lists={lists}",
        f"--option=Dir::Cache={work}",
        "--option=APT::Sandbox::User=root",
    ]
    if kind == "deb":
        options.append(f"--option=Dir::State::Status={work / 'status'}")
    run("apt-get", *options, "update")
    return options


def _installed(name: str) -> bool:
    try:
        return run("dpkg-query", "--show", "--showformat=${db:Status-Status}", name) == "installed"
    except ClusterError:
        return False


@contextmanager
def _services_not_started() -> Iterator[None]:
    """Debian's own switch: a ``policy-rc.d`` that exits 101 forbids starting services."""
    if POLICY.exists():
        yield  # the administrator's policy stands
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()
