"""Creates new certificates, service-account keys and kubeconfigs at each start, with ``openssl``."""

import json
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.shell import run

DAYS = "30"
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_AUTHORITY_EXTENSIONS = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
_LEAF_EXTENSIONS = """\
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=clientAuth,serverAuth
authorityKeyIdentifier=keyid
"""


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key: paths of PEM files."""

    certificate: Path
    key: Path


class Authority:
    """The cluster's only certificate authority. It signs certificates of servers and clients."""

    def __init__(self, folder: Path) -> None:
        """Create the authority's key and certificate in ``folder``.

        Raises:
            ClusterError: ``openssl`` is missing or failed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self.folder = folder
        self.pair = Pair(folder / "ca.crt", folder / "ca.key")
        extensions = [word for line in _AUTHORITY_EXTENSIONS for word in ("-addext", line)]
        where = ("-keyout", self.pair.key, "-out", self.pair.certificate)
        subject = ("-subj", "/CN=rft-test-cluster")
        run("openssl", "req", "-x509", *_KEY, "-days", DAYS, *subject, *extensions, *where)

    def issue(self, name: str, user: str, group: str | None = None, hosts: tuple[str, ...] = ()) -> Pair:
        """Create a key and a certificate. Return the paths of both files.

        - ``name`` is the beginning of the files' names.
        - ``user`` and ``group`` are the user and the group that the certificate identifies.
        - ``hosts`` are the hosts for which the certificate is valid. Each begins with ``DNS:`` or ``IP:``.
        """
        pair = Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        request = self.folder / f"{name}.csr"
        subject = f"/O={group}/CN={user}" if group else f"/CN={user}"
        run("openssl", "req", "-new", *_KEY, "-subj", subject, "-keyout", pair.key, "-out", request)
        extensions = self.folder / f"{name}.ext"
        alternative = f"subjectAltName={','.join(hosts)}\n" if hosts else ""
        extensions.write_text(_LEAF_EXTENSIONS + alternative)
        signer = ("-CA", self.pair.certificate, "-CAkey", self.pair.key, "-CAcreateserial")
        what = ("-in", request, "-extfile", extensions, "-out", pair.certificate)
        run("openssl", "x509", "-req", "-days", DAYS, *signer, *what)
        request.unlink()
        extensions.unlink()
        return pair

    def kubeconfig(self, server: str, user: Pair, target: Path) -> Path:
        """Write a kubeconfig into the file ``target``, and return ``target``.

        - ``server`` is the URL of the API server.
        - ``user`` has the paths of the user's certificate and key. The kubeconfig contains these paths.

        The kubeconfig is JSON, which is valid YAML.
        """
        cluster = {"server": server, "certificate-authority": str(self.pair.certificate)}
        client = {"client-certificate": str(user.certificate), "client-key": str(user.key)}
        context = {"cluster": "rft-test", "user": "rft-test"}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "rft-test", "cluster": cluster}],
            "users": [{"name": "rft-test", "user": client}],
            "contexts": [{"name": "rft-test", "context": context}],
            "current-context": "rft-test",
        }
        target.write_text(json.dumps(document, indent=2))
        target.chmod(0o600)
        return target


def service_account_key(folder: Path) -> Path:
    """Create the RSA key that signs service-account tokens: 2048 bits, as PEM."""
    key = folder / "service-account.key"
    run("openssl", "genrsa", "-out", key, "2048")
    return key
