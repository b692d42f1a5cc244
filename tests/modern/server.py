"""Runs a current API server and its etcd during a ``with`` block."""

import json
import os
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.cluster.build import etcd_program
from tests.cluster.pki import Authority, Pair, service_account_key
from tests.cluster.shell import ClusterError, tail, wait_until
from tests.modern.build import BINARY, WHOLE
from tests.ports import free_port

# These admission plugins read Namespaces, Secrets or webhooks, which this server does not serve.
NO_ADMISSION = (
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "NamespaceLifecycle",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
)


@dataclass(frozen=True)
class Server:
    """A running API server."""

    url: str
    client: httpx.Client
    """An HTTP client with an administrator's certificate."""

    def call(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> httpx.Response:
        """Send one request. ``kind`` is the content type of the body."""
        content = None if body is None else json.dumps(body)
        return self.client.request(method, path, content=content, headers={"Content-Type": kind})


@contextmanager
def running(binaries: Path, folder: Path) -> Iterator[Server]:
    """Run an API server with its own etcd during the ``with`` block. Yield the server.

    ``binaries`` is the folder with the programs. Data, certificates and logs are written into ``folder``.

    Raises:
        ClusterError: the API server did not start. The message has the end of its log.
    """
    url = f"https://127.0.0.1:{free_port()}"
    etcd = f"http://127.0.0.1:{free_port()}"
    authority = Authority(folder / "pki")
    serving = authority.issue("server", "rft-modern", hosts=("IP:127.0.0.1", "DNS:localhost"))
    admin = authority.issue("admin", "admin", group="system:masters")
    kubeconfig = authority.kubeconfig(url, admin, folder / "kubeconfig")
    whole = os.access(binaries / WHOLE, os.X_OK)
    program = WHOLE if whole else BINARY
    command = (
        _whole_server(binaries, url, etcd, authority, serving)
        if whole
        else _server(binaries, url, etcd, authority.pair, serving, kubeconfig)
    )
    with ExitStack() as stack:
        _start(stack, folder, _etcd(binaries, folder, etcd))
        server = _start(stack, folder, command)
        client = stack.enter_context(
            httpx.Client(base_url=url, verify=_tls(authority.pair, admin), timeout=30)
        )

        def answers() -> bool:
            if server.poll() is not None:
                raise ClusterError(f"{program} ended:\n{tail(folder / f'{program}.log')}")
            try:
                # /readyz of apiextensions-apiserver never returns 200 here: it waits for core objects, which
                # only a kube-apiserver serves.
                return client.get("/readyz" if whole else "/healthz").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(f"answer of {program}", 60, answers)
        yield Server(url, client)


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


def _server(
    binaries: Path, url: str, etcd: str, authority: Pair, serving: Pair, kubeconfig: Path
) -> list[str]:
    return [
        str(binaries / BINARY),
        f"--etcd-servers={etcd}",
        "--bind-address=127.0.0.1",
        f"--secure-port={url.rsplit(':', 1)[-1]}",
        f"--client-ca-file={authority.certificate}",
        f"--tls-cert-file={serving.certificate}",
        f"--tls-private-key-file={serving.key}",
        # The server wants the address of a kube-apiserver that authenticates and authorizes its clients.
        # There is none, so it gets its own address. It sends no request there, because all clients are
        # administrators.
        "--authentication-skip-lookup",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--kubeconfig={kubeconfig}",
        "--enable-priority-and-fairness=false",
        f"--disable-admission-plugins={','.join(NO_ADMISSION)}",
    ]


def _whole_server(binaries: Path, url: str, etcd: str, authority: Authority, serving: Pair) -> list[str]:
    key = service_account_key(authority.folder)
    issuer = "https://kubernetes.default.svc"
    return [
        str(binaries / WHOLE),
        f"--etcd-servers={etcd}",
        "--bind-address=127.0.0.1",
        f"--secure-port={url.rsplit(':', 1)[-1]}",
        "--service-cluster-ip-range=10.96.0.0/24",
        "--authorization-mode=RBAC",
        f"--client-ca-file={authority.pair.certificate}",
        f"--tls-cert-file={serving.certificate}",
        f"--tls-private-key-file={serving.key}",
        f"--service-account-issuer={issuer}",
        f"--api-audiences={issuer}",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
    ]


def _start(stack: ExitStack, folder: Path, command: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start a program with a log in ``folder``. It is killed when ``stack`` closes or this process dies."""
    log = stack.enter_context((folder / f"{Path(command[0]).name}.log").open("wb"))
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def _tls(authority: Pair, client: Pair) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.load_cert_chain(str(client.certificate), str(client.key))
    return context
