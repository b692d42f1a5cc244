"""``python3 -m tests.cluster.control_plane``: runs an API server, etcd and controllers without a node.

Jobs get pods, service accounts get tokens, and the garbage collector works, but no pod ever runs. The command
does not need root. It uses free ports and a single folder, so it does not affect other clusters.
"""

import json
import signal
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tests.cluster.build import etcd_program, minor_version, server_binaries
from tests.cluster.components import ISSUER
from tests.cluster.config import AUDIT_POLICY
from tests.cluster.layout import default_layout
from tests.cluster.pki import Authority, service_account_key
from tests.cluster.shell import ClusterError, tail, wait_until
from tests.ports import free_port

_CONTROLLERS_PER_SECOND = 400
"""Requests per second that the controllers may send. The default, 20, allows 1,000 new pods a minute."""


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane."""

    url: str
    kubeconfig: Path
    """Kubeconfig of an administrator."""
    audit_log: Path
    folder: Path
    """Folder with data, certificates and logs."""
    authority: Authority
    """Certificate authority that signs the certificates of this cluster's servers and users."""

    def login(self, name: str, user: str, group: str | None = None) -> Path:
        """Write a kubeconfig for ``user`` and return its path. Names of new files begin with ``name``."""
        pair = self.authority.issue(name, user, group)
        return self.authority.kubeconfig(self.url, pair, self.folder / f"{name}.kubeconfig")


@dataclass(frozen=True)
class Further:
    """Additional command-line options of a control plane's programs, and the API server's audit policy."""

    server: tuple[str, ...] = ()
    manager: tuple[str, ...] = ()
    etcd: tuple[str, ...] = ()
    audited: tuple[Mapping[str, Any], ...] = ({"level": "Metadata"},)
    """Rules of the audit policy."""


@contextmanager
def running(binaries: Path, folder: Path, further: Further | None = None) -> Iterator[ControlPlane]:
    """Run a control plane during the ``with`` block, with data, certificates and logs in ``folder``.

    Raises:
        ClusterError: the API server did not start. The message contains the end of its log.
    """
    further = further or Further()
    url, etcd = f"https://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    authority = Authority(folder / "pki")
    authority.issue("server", "rft-test", hosts=("IP:127.0.0.1", "DNS:localhost"))
    admin = authority.issue("admin", "rft-test-admin", "system:masters")
    service_account_key(authority.folder)
    policy = AUDIT_POLICY | {"rules": list(further.audited)}
    (folder / "audit-policy.json").write_text(json.dumps(policy))
    kubeconfig = authority.kubeconfig(url, admin, folder / "kubeconfig")
    plane = ControlPlane(url, kubeconfig, folder / "logs" / "audit.log", folder, authority)
    plane.audit_log.parent.mkdir()
    with ExitStack() as stack:
        start(stack, folder, [*_etcd(binaries, folder, etcd), *further.etcd])
        server = start(stack, folder, [*_api_server(binaries, folder, plane, etcd), *further.server])
        trust = ssl.create_default_context(cafile=str(authority.pair.certificate))

        def ready() -> bool:
            if server.poll() is not None:
                raise ClusterError(
                    f"kube-apiserver ended, its log:\n{tail(folder / 'logs/kube-apiserver.log')}"
                )
            try:
                with urllib.request.urlopen(f"{url}/readyz", timeout=5, context=trust) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        wait_until("answer of kube-apiserver", 300, ready)
        kubeconfig = plane.login("manager", "system:kube-controller-manager")
        start(stack, folder, [*_controller_manager(binaries, folder, kubeconfig), *further.manager])
        yield plane


def _etcd(binaries: Path, folder: Path, url: str) -> list[str]:
    peer = f"http://127.0.0.1:{free_port()}"
    return [
        str(etcd_program(binaries)),
        f"--data-dir={folder / 'etcd'}",
        "--log-outputs=stderr",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
    ]


def _api_server(binaries: Path, folder: Path, plane: ControlPlane, etcd: str) -> list[str]:
    pki = folder / "pki"
    return [
        f"{binaries}/kube-apiserver",
        f"--etcd-servers={etcd}",
        "--bind-address=127.0.0.1",
        f"--secure-port={plane.url.rsplit(':', 1)[-1]}",
        "--service-cluster-ip-range=10.96.0.0/24",
        "--authorization-mode=RBAC",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/server.crt",
        f"--tls-private-key-file={pki}/server.key",
        f"--service-account-issuer={ISSUER}",
        f"--api-audiences={ISSUER}",
        f"--service-account-key-file={pki}/service-account.key",
        f"--service-account-signing-key-file={pki}/service-account.key",
        f"--audit-policy-file={folder}/audit-policy.json",
        f"--audit-log-path={plane.audit_log}",
    ]


def _controller_manager(binaries: Path, folder: Path, kubeconfig: Path) -> list[str]:
    pki = folder / "pki"
    return [
        f"{binaries}/kube-controller-manager",
        f"--kubeconfig={kubeconfig}",
        f"--service-account-private-key-file={pki}/service-account.key",
        f"--root-ca-file={pki}/ca.crt",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        *(["--port=0"] if minor_version(binaries) < 24 else []),  # turns off a port without TLS
        f"--secure-port={free_port()}",
        # Without cronjob, which up to Kubernetes 1.20 lists all Jobs from etcd every ten seconds.
        "--controllers=*,-cronjob",
        # Without a node no claim is ever bound. By default each claim would get an Event every 15 seconds.
        "--pvclaimbinder-sync-period=1h",
        f"--kube-api-qps={_CONTROLLERS_PER_SECOND}",
        f"--kube-api-burst={2 * _CONTROLLERS_PER_SECOND}",
    ]


def start(stack: ExitStack, folder: Path, command: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start a program with a log in ``folder``. Closing ``stack``, or the end of this process, kills it."""
    log = stack.enter_context((folder / "logs" / f"{Path(command[0]).name}.log").open("wb"))
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def main() -> int:
    """Run a control plane until this process is stopped. Print the path of its kubeconfig."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        binaries = server_binaries(default_layout().cache)
        with tempfile.TemporaryDirectory() as folder, running(binaries, Path(folder)) as plane:
            print(plane.kubeconfig, flush=True)
            signal.pause()
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt. Then all programs are stopped, and the folder is removed."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
