"""The command lines with which the trainer can start vLLM on GPUs."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

from rft_planner.memory import SLOT_RANKS
from rft_trainer.learn.policy import ATTENTION_LAYERS
from rft_trainer.rollout.vllm_server import ServerOptions, command

GPUS = (1, 2, 4, 8)
DTYPES = ("bfloat16", "float16", "float32")
CONTEXTS = (512, 16_384, 131_072)
CACHE_BYTES = (None, 3 * 2**30)
"""Sizes of the KV cache in bytes.

With None the command line has no size: the sampler has its own GPUs, and vLLM measures their free memory.
"""


def server_options() -> Iterator[ServerOptions]:
    """Yield the options of vLLM for every combination of settings that differ between jobs.

    These are dtype, GPUs, LoRA rank and layers, deterministic mode, context length, and size of the KV cache.
    """
    choices = product(DTYPES, GPUS, SLOT_RANKS, ((), ATTENTION_LAYERS), (False, True), CONTEXTS, CACHE_BYTES)
    for dtype, gpus, rank, adapted, deterministic, context, cache_bytes in choices:
        yield ServerOptions(
            model=Path("/models/base"),
            context_length=context,
            lora_rank=rank,
            run_dir=Path("/runs/job"),
            device="cuda",
            dtype=dtype,
            kv_cache_bytes=cache_bytes,
            tensor_parallel=gpus,
            gpu_memory_share=0.45 if gpus == 1 else 0.9,
            visible_devices=",".join(map(str, range(gpus))),
            adapted=adapted,
            deterministic=deterministic,
        )


def arguments(options: ServerOptions) -> list[str]:
    """Return the part of the command line after ``python -m MODULE``."""
    return command(options, Path("/tmp/vllm.sock"))[3:]
