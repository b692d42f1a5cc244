"""The check of references finds every mention of a file or name that does not exist, and nothing else."""

import pytest
from scripts.references import Repository, Text, broken_links, broken_names, read, tracked

MISSING = "reference" + "s_nobody_wrote"


@pytest.fixture(scope="module")
def repository() -> Repository:
    # Only a part of the repository, because the whole takes two seconds.
    return read(name for name in tracked() if name.startswith(("operator/rft_api/", "docs/")))[1]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("see operator/rft_api/conditions.py", []),
        ("see conditions.py and `rft_api/conditions.py`", []),
        ("see docs/" + MISSING + ".md", ["docs/" + MISSING + ".md"]),
        ("`operator/" + MISSING + "/`", ["operator/" + MISSING + "/"]),
        ("`make lint` and you make sure", []),
        ("`make " + "nothing-new`", ["make " + "nothing-new"]),
        ("``rft_api.conditions.merge``", []),
        ("``rft_api.conditions." + MISSING + "``", ["rft_api.conditions." + MISSING]),
        ("``rft_api." + MISSING + "``", ["rft_api." + MISSING]),
        ("``conditions_of``, ``merge()``, ``plain words``", []),
        ("``" + MISSING + "()``", [MISSING + "()"]),
        ("https://example.org/other/" + MISSING + ".py", []),
    ],
)
def test_references_to_missing_files_and_names_are_found(
    repository: Repository, said: str, found: list[str]
) -> None:
    text = Text("operator/rft_api/base.py", 1, said)
    assert [wrong for _, wrong in broken_names(text, repository)] == found


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("[a](docs/webhook.md), [b](https://example.org)", []),
        ("[a](docs/benchmarks.md#the-update-on-a-gpu)", []),
        ("[a](docs/benchmarks.md#" + MISSING + ")", ["docs/benchmarks.md#" + MISSING]),
        ("[a](docs/" + MISSING + ".md)", ["docs/" + MISSING + ".md"]),
        ("`[a](docs/" + MISSING + ".md)`", []),
    ],
)
def test_links_to_missing_files_and_headings_are_found(said: str, found: list[str]) -> None:
    assert [wrong for _, wrong in broken_links(Text("README.md", 1, said))] == found
