"""Provides the serving certificate of the admission webhook. Also sets the ``caBundle`` with which the API
server verifies this certificate.
"""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rft_operator import tls
from rft_operator.cluster import Cluster
from rft_operator.tls_secret import current_identity
from rft_operator.webhook.settings import WebhookSettings

Source = Callable[[], tls.KeyPair]
"""A function that returns the current serving certificate of the webhook, with its private key. The function
may block its thread.

It raises ClusterError, OSError or ValueError if the certificate cannot be read or created."""


def mounted(folder: Path) -> tls.KeyPair:
    """Return the certificate and the key in the files ``tls.crt`` and ``tls.key`` of ``folder``. The folder
    is a mounted Secret, for example one that cert-manager writes.
    """
    return tls.KeyPair((folder / "tls.crt").read_text(), (folder / "tls.key").read_text())


def own(cluster: Cluster, settings: WebhookSettings) -> tls.KeyPair:
    """Return the certificate and the key in the webhook's own Secret. If they are missing or expire soon,
    create new ones first.

    If the settings name a ValidatingWebhookConfiguration, also set its ``caBundle`` to the CA certificates in
    the Secret.
    """
    name = settings.configuration
    # The configuration is read before the Secret. So the patch fails with a conflict if another replica
    # renews the CA in between.
    configuration = cluster.webhook_configuration(name) if name else None
    identity = current_identity(
        cluster, settings.own_namespace, settings.tls_secret, settings.tls_names, tls.WEBHOOK
    )
    patch = ca_patch(configuration, identity.ca_bundle) if configuration is not None else {}
    if patch:
        cluster.patch_webhook_configuration(name, patch)
    return identity


def ca_patch(configuration: dict[str, Any], bundle: str) -> dict[str, Any]:
    """Return the strategic merge patch that sets ``caBundle`` in each webhook of a
    ValidatingWebhookConfiguration.

    ``bundle`` is the CA certificates as PEM text. If all webhooks of ``configuration`` have this bundle
    already, the patch is empty.
    """
    wanted = base64.b64encode(bundle.encode()).decode()
    behind = [
        webhook["name"]
        for webhook in configuration.get("webhooks") or []
        if webhook["clientConfig"].get("caBundle") != wanted
    ]
    if not behind:
        return {}
    return {
        "metadata": {"resourceVersion": configuration["metadata"]["resourceVersion"]},
        "webhooks": [{"name": name, "clientConfig": {"caBundle": wanted}} for name in behind],
    }
