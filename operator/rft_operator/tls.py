"""Creates and renews the CA and the serving certificate of the ingest and of the webhook.

The operator and the webhook create these certificates themselves, and each stores them in a Secret of its
own. The Helm chart cannot create them: it would create new ones each time that it is rendered. This module
does not send requests to the API server; ``tls_secret`` does.
"""

import base64
import ipaddress
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFE = timedelta(days=3650)
SERVING_LIFE = timedelta(days=90)
CA_MARGIN = timedelta(days=365)
SERVING_MARGIN = timedelta(days=30)
INGEST = "rft-operator ingest"
WEBHOOK = "rft-operator webhook"
_CLOCK_SKEW = timedelta(minutes=5)
_FIELDS = {"ca_bundle": "ca.crt", "ca_key": "ca.key", "certificate": "tls.crt", "key": "tls.key"}


@dataclass(frozen=True)
class KeyPair:
    """A serving certificate and its private key, both as PEM text."""

    certificate: str
    key: str


@dataclass(frozen=True)
class Identity(KeyPair):
    """A serving certificate, and the CA that signed it.

    The first certificate in ``ca_bundle`` is the current CA, and older CAs follow.
    """

    ca_bundle: str
    ca_key: str

    def to_secret(self) -> dict[str, str]:
        """Return the certificates and keys as the data of a Secret."""
        return {
            entry: base64.b64encode(getattr(self, name).encode()).decode() for name, entry in _FIELDS.items()
        }


def from_secret(secret: Mapping[str, Any]) -> Identity | None:
    """Return the certificates and keys in the data of a Secret.

    Return ``None`` if one of them is missing or is no text.
    """
    data = secret.get("data") or {}
    if not all(entry in data for entry in _FIELDS.values()):
        return None
    try:
        return Identity(**{name: base64.b64decode(data[entry]).decode() for name, entry in _FIELDS.items()})
    except ValueError:
        return None


def renewed(current: Identity | None, names: Sequence[str], now: datetime, server: str = INGEST) -> Identity:
    """Return certificates that are valid for all ``names``.

    - If ``current`` is ``None``, or its CA expires within ``CA_MARGIN`` or cannot sign, the CA and the
      serving certificate are new. A CA cannot sign if it or its key cannot be read, for example because
      somebody edited the Secret.
    - If only the serving certificate expires within ``SERVING_MARGIN``, lacks one of ``names`` or does not
      fit its key, only this certificate is new.
    - Otherwise ``current`` is returned.

    A new CA comes before the old CA in the bundle. The old CA stays in the bundle while it is valid. So a
    client that reads the bundle for each connection accepts certificates of both CAs.

    ``names`` are DNS names and IP addresses. ``server`` is the name of the server, for new certificates.
    """
    bundle = _certificates(current.ca_bundle) if current is not None else []
    key = _key(current.ca_key, bundle[0]) if current is not None and bundle else None
    if current is None or key is None or bundle[0].not_valid_after_utc - now < CA_MARGIN:
        valid = [old for old in bundle if old.not_valid_after_utc > now]
        return _serving(server, *_authority(server, now), older=valid, names=names, now=now)
    if _serves(current, bundle[0], names, now):
        return current
    return _serving(server, bundle[0], key, older=bundle[1:], names=names, now=now)


def _serves(pair: KeyPair, authority: x509.Certificate, names: Sequence[str], now: datetime) -> bool:
    """Return whether a serving certificate fits its key, its CA and all ``names``, and does not expire within
    ``SERVING_MARGIN``.
    """
    found = _certificates(pair.certificate)
    if not found or _key(pair.key, found[0]) is None:
        return False
    fresh = found[0].not_valid_after_utc - now > SERVING_MARGIN
    return fresh and _names_of(found[0]) >= set(names) and found[0].issuer == authority.subject


def _certificates(pem: str) -> list[x509.Certificate]:
    """Return the certificates in a PEM text. The list is empty if the text cannot be read."""
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        return []


def _key(pem: str, certificate: x509.Certificate) -> ec.EllipticCurvePrivateKey | None:
    """Return the private key ``pem`` of a certificate. Return ``None`` if ``pem`` is not this key."""
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        return None
    return key


def server_context(pair: KeyPair) -> ssl.SSLContext:
    """Return the SSL context of a server, with the serving certificate."""
    context = bare_context()
    load_into(context, pair)
    return context


def bare_context() -> ssl.SSLContext:
    """Return an SSL context for a server. It has no certificate yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # With TLS 1.2 a client could make the server repeat the costly key exchange on one connection.
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def load_into(context: ssl.SSLContext, pair: KeyPair) -> None:
    """Load the serving certificate into the SSL ``context``. New connections then use this certificate."""
    # The ssl module reads certificates only from files. Other users cannot read this folder, and it is
    # removed after the certificate is loaded.
    with tempfile.TemporaryDirectory(prefix="rft-tls-") as folder:
        certificate, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
        certificate.write_text(pair.certificate)
        key.write_text(pair.key)
        context.load_cert_chain(certificate, key)


def _authority(server: str, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # The serial number makes the names of two CAs in a bundle different.
    subject = _name(f"{server} CA {serial % 10**8:08d}")
    certificate = (
        _builder(subject, subject, key.public_key(), now, CA_LIFE)
        .serial_number(serial)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _serving(
    server: str,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    *,
    older: Sequence[x509.Certificate],
    names: Sequence[str],
    now: datetime,
) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    certificate = (
        _builder(_name(server), authority.subject, key.public_key(), now, SERVING_LIFE)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectAlternativeName([_alternative(n) for n in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return Identity(
        ca_bundle="".join(_pem(c) for c in [authority, *older]),
        ca_key=_key_pem(authority_key),
        certificate=_pem(certificate),
        key=_key_pem(key),
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + life)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names_of(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return set()
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    return addresses | set(names.get_values_for_type(x509.DNSName))


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
