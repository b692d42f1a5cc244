"""A real API server stores the CRD without a change."""

from collections.abc import Iterator
from typing import Any

import pytest

from rft_codegen.crd import crd
from tests.integration.operator_support import CRDS, Api, has_cel

pytestmark = pytest.mark.cluster


def _differences(ours: Any, theirs: Any, path: str) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            yield from _differences(ours.get(key), theirs.get(key), f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _differences(mine, other, f"{path}[{number}]")
    elif ours != theirs:
        yield f"{path}: {ours!r} became {theirs!r}"


def test_the_api_server_gives_the_crd_back_as_it_was_written(api: Api) -> None:
    """If the stored CRD differs, Helm's server-side apply reports a conflict, and Argo CD reports drift."""
    if not has_cel(api):
        pytest.skip("an API server without CEL drops the rules")
    stored = api.get(CRDS, "rftjobs.rft.dev")["spec"]
    stored.pop("conversion")  # the server's own default
    assert list(_differences(crd()["spec"], stored, "spec")) == []


def test_deleting_all_of_a_namespace_does_not_delete_training(api: Api) -> None:
    assert "categories" not in api.get(CRDS, "rftjobs.rft.dev")["spec"]["names"]
