"""Reads and renews the Secret with the certificates of a server."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from rft_operator import tls
from rft_operator.cluster import Cluster, Conflict, Unavailable
from rft_operator.objects.names import MANAGED_BY, OPERATOR_NAME

_log = logging.getLogger(__name__)


def current_identity(
    cluster: Cluster, namespace: str, name: str, names: Sequence[str], server: str = tls.INGEST
) -> tls.Identity:
    """Return the certificates in the Secret ``namespace/name``.

    If they are missing, expire soon or lack one of ``names``, new ones are created first and stored in the
    Secret. ``server`` is the name of the server in the new certificates.

    Raises:
        ClusterError: if the Secret cannot be read or written.
    """
    for _ in range(3):
        secret = cluster.secret(namespace, name)
        current = tls.from_secret(secret) if secret is not None else None
        wanted = tls.renewed(current, names, datetime.now(UTC), server)
        if wanted == current:
            return wanted
        try:
            if secret is None:
                cluster.create(_secret(namespace, name, wanted))
            else:
                version = secret["metadata"]["resourceVersion"]
                cluster.merge_data("Secret", namespace, name, version, wanted.to_secret())
        except Conflict:
            continue
        _log.info("Secret %s/%s has new certificates for %s", namespace, name, ", ".join(names))
        return wanted
    raise Unavailable(
        409, f"Secret {namespace}/{name} was changed by another client at each attempt to write it"
    )


def _secret(namespace: str, name: str, identity: tls.Identity) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {MANAGED_BY: OPERATOR_NAME}},
        "type": "Opaque",
        "data": identity.to_secret(),
    }
