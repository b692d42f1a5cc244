"""Serving certificates are created, kept and renewed. When a CA is renewed, the old one stays valid."""

import socket
import ssl
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from rft_operator import tls

NOW = datetime.now(UTC)
NAMES = ("ingest.rft.svc", "127.0.0.1")


def shake_hands(identity: tls.Identity, bundle: str, name: str) -> None:
    """Connect a client to a server. The server has the certificate of ``identity``.

    The client trusts the CAs in ``bundle``, and expects the server's name ``name``.

    Raises:
        ssl.SSLError: the client does not accept the certificate.
    """
    here, there = socket.socketpair()
    context = tls.server_context(identity)

    def serve() -> None:
        with there:
            try:
                context.wrap_socket(there, server_side=True).close()
            except (ssl.SSLError, OSError):
                return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with ssl.create_default_context(cadata=bundle).wrap_socket(here, server_hostname=name):
            pass
    finally:
        here.close()
        thread.join()


@pytest.mark.parametrize("name", NAMES)
def test_a_client_with_the_bundle_trusts_the_server(name: str) -> None:
    identity = tls.renewed(None, NAMES, NOW)
    shake_hands(identity, identity.ca_bundle, name)


def test_a_client_refuses_another_name_and_another_ca() -> None:
    identity = tls.renewed(None, NAMES, NOW)
    with pytest.raises(ssl.SSLError):
        shake_hands(identity, identity.ca_bundle, "elsewhere.svc")
    with pytest.raises(ssl.SSLError):
        shake_hands(identity, tls.renewed(None, NAMES, NOW).ca_bundle, NAMES[0])


def test_certificates_say_which_server_they_are_for() -> None:
    identity = tls.renewed(None, NAMES, NOW, tls.WEBHOOK)
    (authority,) = x509.load_pem_x509_certificates(identity.ca_bundle.encode())
    serving = x509.load_pem_x509_certificate(identity.certificate.encode())
    assert serving.subject.rfc4514_string() == f"CN={tls.WEBHOOK}"
    assert serving.issuer == authority.subject
    assert authority.subject.rfc4514_string().startswith(f"CN={tls.WEBHOOK} CA ")


def test_a_valid_identity_is_kept() -> None:
    identity = tls.renewed(None, NAMES, NOW)
    assert tls.renewed(identity, NAMES, NOW + timedelta(days=1)) is identity
    assert tls.renewed(identity, NAMES[:1], NOW) is identity


@pytest.mark.parametrize(("names", "later"), [((*NAMES, "10.0.0.9"), 0), (NAMES, 61)])
def test_a_new_name_or_an_early_expiry_gives_a_new_certificate_of_the_same_ca(
    names: tuple[str, ...], later: int
) -> None:
    identity = tls.renewed(None, NAMES, NOW)
    newer = tls.renewed(identity, names, NOW + timedelta(days=later))
    assert newer.certificate != identity.certificate
    assert newer.ca_bundle == identity.ca_bundle
    if not later:
        shake_hands(newer, identity.ca_bundle, names[-1])


def test_a_new_ca_overlaps_with_the_old_one() -> None:
    old = tls.renewed(None, NAMES, NOW - tls.CA_LIFE + timedelta(days=100))
    new = tls.renewed(old, NAMES, NOW)
    assert len(x509.load_pem_x509_certificates(new.ca_bundle.encode())) == 2
    shake_hands(new, new.ca_bundle, NAMES[0])
    late = tls.renewed(new, NAMES, NOW + timedelta(days=101))
    assert late.ca_bundle == new.ca_bundle, "a valid CA must not be replaced"


def test_an_identity_is_unchanged_after_storing_it_in_a_secret() -> None:
    identity = tls.renewed(None, NAMES, NOW)
    assert tls.from_secret({"data": identity.to_secret()}) == identity
    assert tls.from_secret({"data": {}}) is None
    assert tls.from_secret({}) is None


BROKEN = ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize("part", ["ca_bundle", "ca_key", "certificate", "key"])
def test_what_cannot_be_read_or_does_not_fit_is_replaced(part: str, text: str) -> None:
    identity = tls.renewed(None, NAMES, NOW)
    other = getattr(tls.renewed(None, NAMES, NOW), part)
    for wrong in (text, other):
        newer = tls.renewed(replace(identity, **{part: wrong}), NAMES, NOW)
        shake_hands(newer, newer.ca_bundle, NAMES[0])
        assert (newer.ca_key == identity.ca_key) is (part in ("certificate", "key"))
    assert tls.from_secret({"data": {**identity.to_secret(), "ca.crt": "/w=="}}) is None
