"""Replaces server-side apply, which the fake API server of the unit tests does not support.

The objects that would be applied are added to a list.
"""

import pytest

from rft_cli.cluster.client import Body, ClusterClient


def record_applied(monkeypatch: pytest.MonkeyPatch) -> list[Body]:
    """Let ``ClusterClient.applying`` record objects and send nothing. Return the list of these objects."""
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
