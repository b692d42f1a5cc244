"""The planner makes the table of plans in the documentation."""

import pytest

from rft_codegen.planning_table import KINDS, MODELS, RANKS, planned, plans_markdown


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", [model for model, practice in MODELS.items() if practice is not None])
def test_no_plan_has_more_gpus_than_verls_documentation(model: str, kind: str) -> None:
    practice = MODELS[model]
    for rank in RANKS:
        made = planned(model, rank, kind)
        assert made is not None
        assert practice is not None
        assert made.gpus <= practice


@pytest.fixture(scope="module")
def page() -> str:
    """Generate the page once before the tests, because each test may use only 2 s of CPU time."""
    return plans_markdown()


def test_the_table_has_every_model_and_rank(page: str) -> None:
    lines = page.splitlines()
    for model in MODELS:
        line = next(line for line in lines if line.startswith(f"| {model} |"))
        assert len(line.strip("|").split("|")) == 2 + len(RANKS)


def test_a_number_is_bold_exactly_where_the_rank_changes_it(page: str) -> None:
    for model in MODELS:
        cells = next(line for line in page.splitlines() if line.startswith(f"| {model} |")).split("|")[3:-1]
        counts = [cell.split(":")[0].strip() for cell in cells]
        plain = [count.strip("*") for count in counts]
        assert not counts[0].startswith("*")
        for before, count, after in zip(plain, counts[1:], plain[1:], strict=False):
            assert count.startswith("**") == (before != after)


def test_large_models_with_the_lowest_rank_have_the_advice(page: str) -> None:
    advice = next(line for line in page.splitlines() if "`rft validate` says" in line)
    assert "rank 4 on a model of 70B or more" in advice
    for model in MODELS:
        assert (model in advice) == any(size in model for size in ("72B", "70B", "120b")), model
