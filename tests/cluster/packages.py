"""Installs or downloads the Debian packages for the node and for the builds."""

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
    """Install missing packages, but do not start their services.

    Raises:
        ClusterError: the system has no apt-get, or apt-get failed.
    """
    if shutil.which("apt-get") is None:
        raise ClusterError(
            "the node needs Debian packages, but this system has no apt-get; "
            "install kind and Docker, or set RFT_TEST_KUBECONFIG"
        )
    missing = [name for name in names if not _installed(name)]
    if not missing:
        return
    say(f"installing the Debian packages {' '.join(missing)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    wait = "--option=DPkg::Lock::Timeout=300"  # waits while another installation runs
    run("apt-get", wait, "update", env=quiet)
    with _services_not_started():
        run("apt-get", wait, "install", "--yes", "--no-install-recommends", *missing, env=quiet)


def private_lists(work: Path, kind: str, suite: str) -> list[str]:
    """Download package lists into ``work``. Return the apt-get options for the use of these lists.

    ``suite`` is a release of Debian, which may be another than this system's. ``kind`` is ``deb-src`` for
    sources, or ``deb`` for packages. With ``deb``, apt-get assumes that no package is installed.

    Raises:
        ClusterError: the lists cannot be downloaded.
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
    """In the ``with`` block, no new service starts: a ``policy-rc.d`` script exits with 101."""
    if POLICY.exists():
        yield  # keep the administrator's policy
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()
