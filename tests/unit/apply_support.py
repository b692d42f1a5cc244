"""Replaces server-side apply, which the unit tests' fake API server does not support.

Each object to apply is added to a list instead.
"""

import pytest

from rft_cli.cluster.client import Body, ClusterClient


def record_applied(monkeypatch: pytest.MonkeyPatch) -> list[Body]:
    """Make ``ClusterClient.applying`` add each object to a list and send nothing. Return this list."""
    bodies: list[Body] = []

    class Applying:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def __enter__(self) -> object:
            return self.apply

        def apply(self, body: Body) -> str:
            bodies.append(body)
            return "created"

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(ClusterClient, "applying", Applying)
    return bodies
