"""How a model is divided over GPUs."""

from rft_planner.shapes import Shape


def tensor_parallel(gpus: int, shape: Shape) -> int:
    """Return over how many of ``gpus`` vLLM can split the model, at least 1.

    Its tensor parallelism gives every GPU whole attention heads and an equal part of the feed-forward
    columns; key-value heads are divided, or repeated where there are fewer of them than GPUs.
    """
    return next(size for size in range(max(1, gpus), 0, -1) if _splits(size, shape))


def _splits(size: int, shape: Shape) -> bool:
    columns = shape.expert_intermediate if shape.experts else shape.intermediate
    heads = shape.heads % size == 0 and (shape.kv_heads % size == 0 or size % shape.kv_heads == 0)
    return heads and columns % size == 0
