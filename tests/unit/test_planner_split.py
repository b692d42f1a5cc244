"""The split over GPUs."""

import pytest

from rft_planner.catalogue import CATALOGUE
from rft_planner.split import tensor_parallel


@pytest.mark.parametrize(
    ("model", "gpus", "size"),
    [
        ("Qwen/Qwen2.5-7B", 1, 1),
        ("Qwen/Qwen2.5-7B", 3, 2),  # 28 heads, 4 of them for keys and values
        ("Qwen/Qwen2.5-7B", 7, 4),
        ("Qwen/Qwen2.5-0.5B", 7, 2),  # 14 heads; 7 would split its 2 key-value heads
        ("meta-llama/Llama-3.1-70B", 7, 4),
        ("meta-llama/Llama-3.1-70B", 15, 8),
        ("Qwen/Qwen3-30B-A3B", 3, 2),
        ("HuggingFaceTB/SmolLM2-135M", 2, 1),  # 9 heads
    ],
)
def test_the_largest_size_that_divides_heads_and_columns(model: str, gpus: int, size: int) -> None:
    assert tensor_parallel(gpus, CATALOGUE[model]) == size


@pytest.mark.parametrize("shape", CATALOGUE.values(), ids=CATALOGUE.keys())
def test_every_model_can_be_split_or_stays_whole(shape: object) -> None:
    for gpus in range(1, 17):
        size = tensor_parallel(gpus, shape)  # type: ignore[arg-type]
        assert 1 <= size <= gpus
        assert shape.heads % size == 0  # type: ignore[attr-defined]
