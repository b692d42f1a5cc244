"""The webhook uses a certificate only after the API server has got the certificate's CA."""

import base64
from pathlib import Path
from typing import Any

import pytest

from rft_operator import tls
from rft_operator.cluster import Cluster, Conflict, NotFound
from rft_operator.settings import BadSettings
from rft_operator.webhook.certificates import ca_patch, mounted, own
from rft_operator.webhook.settings import WebhookSettings, from_env

SETTINGS = WebhookSettings(tls_names=("hook.rft.svc",), own_namespace="rft", configuration="hook")
Json = dict[str, Any]


class ApiServer(Cluster):
    """A fake API server with one Secret and one ValidatingWebhookConfiguration."""

    def __init__(self, *, configured: bool = True) -> None:
        self.written: list[str] = []
        self.stored: Json | None = None
        client = {"service": {"name": "hook"}}
        self.configuration: Json = {
            "metadata": {"name": "hook", "resourceVersion": "1"},
            "webhooks": [{"name": "rftjobs.rft.dev", "clientConfig": client, "timeoutSeconds": 5}],
        }
        self.configured = configured

    def secret(self, namespace: str, name: str) -> Json | None:
        assert (namespace, name) == ("rft", SETTINGS.tls_secret)
        return self.stored

    def create(self, manifest: Json) -> Json:
        if self.stored is not None:
            raise Conflict(409, "exists")
        self.written.append("secret")
        self.stored = {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": "1"}}
        return self.stored

    def webhook_configuration(self, name: str) -> Json:
        if not self.configured:
            raise NotFound(404, name)
        return self.configuration

    def patch_webhook_configuration(self, name: str, patch: Json) -> Json:
        if patch["metadata"]["resourceVersion"] != self.configuration["metadata"]["resourceVersion"]:
            raise Conflict(409, name)
        self.written.append("configuration")
        for change in patch["webhooks"]:
            webhook = next(w for w in self.configuration["webhooks"] if w["name"] == change["name"])
            webhook["clientConfig"] |= change["clientConfig"]
        return self.configuration

    @property
    def trusted(self) -> str:
        (webhook,) = self.configuration["webhooks"]
        return base64.b64decode(webhook["clientConfig"]["caBundle"]).decode()


def test_the_first_replica_creates_the_secret_and_others_use_it() -> None:
    server = ApiServer()
    first = own(server, SETTINGS)
    assert server.written == ["secret", "configuration"]
    assert own(server, SETTINGS) == first
    assert server.written == ["secret", "configuration"], "a correct configuration must not be written again"
    assert isinstance(first, tls.Identity)
    assert server.trusted == first.ca_bundle
    assert server.configuration["webhooks"][0]["timeoutSeconds"] == 5


def test_a_replica_that_creates_the_secret_too_late_uses_the_existing_one() -> None:
    server = ApiServer()
    winner = ApiServer()
    kept = own(winner, SETTINGS)
    looks = iter([None, winner.stored])
    server.secret = lambda namespace, name: next(looks)  # type: ignore[method-assign]
    server.stored = winner.stored
    assert own(server, SETTINGS) == kept


def test_a_removed_ca_bundle_is_set_again() -> None:
    server = ApiServer()
    identity = own(server, SETTINGS)
    del server.configuration["webhooks"][0]["clientConfig"]["caBundle"]
    assert own(server, SETTINGS) == identity
    assert server.trusted == tls.Identity(**vars(identity)).ca_bundle


def test_an_older_ca_never_replaces_a_newer_one() -> None:
    """Two replicas of the webhook work at the same time.

    This one has read the ValidatingWebhookConfiguration. Before it reads the Secret, the other one writes a
    newer CA into both.
    """
    server = ApiServer()

    class Slow(ApiServer):
        def secret(self, namespace: str, name: str) -> Json | None:
            self.configuration = {**self.configuration, "metadata": {"name": "hook", "resourceVersion": "2"}}
            return server.stored

    own(server, SETTINGS)
    with pytest.raises(Conflict):
        own(Slow(), SETTINGS)


def test_no_certificate_is_served_before_the_api_server_can_trust_it() -> None:
    with pytest.raises(NotFound):
        own(ApiServer(configured=False), SETTINGS)


def test_without_a_configuration_name_no_configuration_is_changed() -> None:
    server = ApiServer(configured=False)
    assert own(server, WebhookSettings(tls_names=("hook",), own_namespace="rft")).certificate
    assert server.written == ["secret"]


def test_the_patch_changes_only_the_ca_bundle() -> None:
    configuration = ApiServer().configuration
    (webhook,) = ca_patch(configuration, "pem")["webhooks"]
    assert webhook == {"name": "rftjobs.rft.dev", "clientConfig": {"caBundle": "cGVt"}}
    configuration["webhooks"][0]["clientConfig"]["caBundle"] = "cGVt"
    assert ca_patch(configuration, "pem") == {}


def test_a_mounted_secret_is_used_unchanged(tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_text("certificate")
    (tmp_path / "tls.key").write_text("key")
    assert mounted(tmp_path) == tls.KeyPair("certificate", "key")


def test_settings_come_from_the_environment() -> None:
    settings = from_env({"RFT_TLS_NAMES": "a.svc, 10.0.0.1", "RFT_WEBHOOK_PORT": "9443"})
    assert (settings.tls_names, settings.port, settings.tls_folder) == (("a.svc", "10.0.0.1"), 9443, None)
    assert from_env({"RFT_TLS_FOLDER": "/tls"}).tls_folder == Path("/tls")


@pytest.mark.parametrize(
    "wrong",
    [
        {"RFT_TLS_NAMES": ""},
        {"RFT_WEBHOOK_PORT": "many"},
        {"RFT_WEBHOOK_PORT": "70000"},
        {"RFT_TLS_CHECK_SECONDS": "0"},
        {"RFT_WEBHOOK_BIND": "everywhere"},
    ],
)
def test_an_invalid_setting_is_named_in_the_error(wrong: dict[str, str]) -> None:
    with pytest.raises(BadSettings, match=next(iter(wrong))):
        from_env({"RFT_TLS_NAMES": "a.svc", **wrong})
