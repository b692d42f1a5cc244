"""``python3 -m tests.cluster.control_plane``: an API server with its etcd and controllers, and no node.

Everything but pods that run is real: Jobs get pods, service accounts get tokens, the garbage collector
collects. It needs no rights on the machine and disturbs no other cluster: free ports, one folder.
"""

import json
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from tests.cluster.build import etcd_program, minor_version, server_binaries
from tests.cluster.components import ISSUER
from tests.cluster.config import AUDIT_POLICY
from tests.cluster.layout import default_layout
from tests.cluster.pki import Authority, service_account_key
from tests.cluster.shell import ClusterError, tail, wait_until

_CONTROLLERS_PER_SECOND = 400
"""Requests that the controllers may send. Their own 20 would make 1,000 pods in a minute at best."""


@dataclass(frozen=True)
class ControlPlane:
    """One that runs."""

    url: str
    kubeconfig: Path
    """An administrator's."""
    audit_log: Path


@contextmanager
def running(binaries: Path, folder: Path) -> Iterator[ControlPlane]:
    """Run one for as long as the block lasts; data, certificates and logs go into ``folder``.

    Raises:
        ClusterError: it did not start; the message carries the end of its log.
    """
    url, etcd = f"https://127.0.0.1:{_free_port()}", f"http://127.0.0.1:{_free_port()}"
    authority = Authority(folder / "pki")
    authority.issue("server", "rft-test", hosts=("IP:127.0.0.1", "DNS:localhost"))
    admin = authority.issue("admin", "rft-test-admin", "system:masters")
    manager = authority.issue("manager", "system:kube-controller-manager")
    service_account_key(authority.folder)
    (folder / "audit-policy.json").write_text(json.dumps(AUDIT_POLICY | {"rules": [{"level": "Metadata"}]}))
    plane = ControlPlane(
        url, authority.kubeconfig(url, admin, folder / "kubeconfig"), folder / "logs" / "audit.log"
    )
    plane.audit_log.parent.mkdir()
    with ExitStack() as stack:
        _start(stack, folder, _etcd(binaries, folder, etcd))
        server = _start(stack, folder, _api_server(binaries, folder, plane, etcd))
        trust = ssl.create_default_context(cafile=str(authority.pair.certificate))

        def ready() -> bool:
            if server.poll() is not None:
                raise ClusterError(f"kube-apiserver ended:\n{tail(folder / 'logs/kube-apiserver.log')}")
            try:
                with urllib.request.urlopen(f"{url}/readyz", timeout=5, context=trust) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        wait_until("answer of kube-apiserver", 300, ready)
        kubeconfig = authority.kubeconfig(url, manager, folder / "manager.kubeconfig")
        _start(stack, folder, _controller_manager(binaries, folder, kubeconfig))
        yield plane


def _etcd(binaries: Path, folder: Path, url: str) -> list[str]:
    peer = f"http://127.0.0.1:{_free_port()}"
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
        *(["--port=0"] if minor_version(binaries) < 24 else []),  # it had a port without TLS, on by default
        f"--secure-port={_free_port()}",
        # Up to Kubernetes 1.20 it lists all Jobs of the cluster every ten seconds, from etcd.
        "--controllers=*,-cronjob",
        # No claim is ever bound here, and each would get an Event about that every 15 seconds.
        "--pvclaimbinder-sync-period=1h",
        f"--kube-api-qps={_CONTROLLERS_PER_SECOND}",
        f"--kube-api-burst={2 * _CONTROLLERS_PER_SECOND}",
    ]


def _start(stack: ExitStack, folder: Path, command: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start a program that ends with the block, and with this process however that ends."""
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    """Run one until this process is ended; print where its kubeconfig is."""
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
    """Unwind, so that everything ends and the folder goes."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
