"""A stand-in for server-side apply, which the API server of the unit tests does not have."""

import pytest

from rft_cli.cluster.client import Body, ClusterClient


def record_applied(monkeypatch: pytest.MonkeyPatch) -> list[Body]:
    """Let ``ClusterClient.applying`` keep what it is given. Return the list that it is added to."""
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
