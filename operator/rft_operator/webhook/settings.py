"""Reads the settings of the webhook from environment variables, once at the start."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rft_operator.listening import EVERYWHERE
from rft_operator.settings import BadSettings, address, number, port, words


@dataclass(frozen=True)
class WebhookSettings:
    """The settings of the webhook, set by the chart or a developer."""

    bind: str = EVERYWHERE
    port: int = 8443
    health_port: int = 8080
    tls_folder: Path | None = None
    """Folder of a mounted Secret with ``tls.crt`` and ``tls.key``. ``None`` means that the webhook creates
    its own certificate."""
    own_namespace: str = "default"
    """Namespace of the webhook's own TLS Secret."""
    tls_secret: str = "rft-operator-webhook-tls"
    tls_names: tuple[str, ...] = ()
    """DNS names and IP addresses that the serving certificate must have."""
    configuration: str = ""
    """Name of the ValidatingWebhookConfiguration whose ``caBundle`` the webhook sets. If it is empty, the
    webhook sets none."""
    check_seconds: float = 60.0
    """Seconds between two checks whether the certificate has changed or must be renewed."""
    drain_seconds: float = 5.0
    """Seconds for which the webhook still answers reviews after SIGTERM, because the Service may still send
    some."""


def from_env(env: Mapping[str, str]) -> WebhookSettings:
    """Return the settings in the environment variables ``env``.

    Raises:
        BadSettings: if a variable is missing or malformed.
    """
    folder, names = env.get("RFT_TLS_FOLDER"), words(env, "RFT_TLS_NAMES")
    if not folder and not names:
        raise BadSettings("RFT_TLS_NAMES is not set; set it to the DNS names for the webhook's certificate")
    return WebhookSettings(
        bind=address(env, "RFT_WEBHOOK_BIND", WebhookSettings.bind),
        port=port(env, "RFT_WEBHOOK_PORT", WebhookSettings.port),
        health_port=port(env, "RFT_HEALTH_PORT", WebhookSettings.health_port),
        tls_folder=Path(folder) if folder else None,
        own_namespace=env.get("RFT_NAMESPACE") or WebhookSettings.own_namespace,
        tls_secret=env.get("RFT_TLS_SECRET") or WebhookSettings.tls_secret,
        tls_names=names,
        configuration=env.get("RFT_WEBHOOK_CONFIGURATION", ""),
        check_seconds=float(
            number(env, "RFT_TLS_CHECK_SECONDS", int(WebhookSettings.check_seconds), least=1)
        ),
        drain_seconds=float(number(env, "RFT_DRAIN_SECONDS", int(WebhookSettings.drain_seconds))),
    )
