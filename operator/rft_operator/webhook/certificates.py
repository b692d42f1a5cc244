"""Provides the serving certificate of the webhook, and the ``caBundle`` with which the API server verifies
it.
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
"""A function that returns the key pair that the webhook must use now. It may block its thread.

It raises ClusterError, OSError or ValueError if the key pair cannot be read or created."""


def mounted(folder: Path) -> tls.KeyPair:
    """Return the key pair in the files of a mounted Secret, such as one of cert-manager."""
    return tls.KeyPair((folder / "tls.crt").read_text(), (folder / "tls.key").read_text())


def own(cluster: Cluster, settings: WebhookSettings) -> tls.KeyPair:
    """Return the key pair in the webhook's own Secret. Create or renew it first if needed.

    The settings may name a ValidatingWebhookConfiguration. Then the CA of the Secret is first written into
    this configuration.
    """
    name = settings.configuration
    # Read before the Secret, so that the patch conflicts if another replica renews the CA in between.
    configuration = cluster.webhook_configuration(name) if name else None
    identity = current_identity(
        cluster, settings.own_namespace, settings.tls_secret, settings.tls_names, tls.WEBHOOK
    )
    patch = ca_patch(configuration, identity.ca_bundle) if configuration is not None else {}
    if patch:
        cluster.patch_webhook_configuration(name, patch)
    return identity


def ca_patch(configuration: dict[str, Any], bundle: str) -> dict[str, Any]:
    """Return the strategic merge patch that sets ``caBundle`` to ``bundle``. It is empty if all webhooks of
    ``configuration`` have this bundle already.
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
