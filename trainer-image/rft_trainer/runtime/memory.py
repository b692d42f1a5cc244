"""Checks, before the model is loaded, that the container has as much memory as the plan of the run needs.

Also finds out whether the sampler failed because it had too little memory.
"""

from rft_planner.sizes import mib, quantity
from rft_run.config import RunConfig
from rft_run.errors import ConfigurationError, MemoryExhausted, SamplerError
from rft_trainer.runtime import machine

_NO_ROOM = "Available memory on node"
"""The beginning of vLLM's error for a KV cache that does not fit into the memory limit."""
_LOWER = "spec.training.maxContextLength, spec.training.loraRank or spec.sampling.numRollouts"


def refuse_too_little(config: RunConfig, limit: int | None = None) -> None:
    """Raise ConfigurationError if a run on the CPU has less memory than its plan needs at least.

    ``limit``: the memory of the run, in bytes. None: the container's memory limit, or the memory of the
    machine if the container has no limit. The job can disable this check. The message says what to change.
    """
    plan = config.plan
    if config.device != "cpu" or plan is None or plan.least_memory is None or plan.forced:
        return
    there = limit or machine.memory_limit() or machine.total_memory()
    if there >= quantity(plan.least_memory):
        return
    raise ConfigurationError(
        f"the memory limit of {mib(there)} is less than the {plan.least_memory} that the plan needs at least:"
        f" raise spec.resources.memory, or lower {_LOWER}"
    )


def after_kills(error: Exception, config: RunConfig, kills: int) -> Exception:
    """Return MemoryExhausted if the sampler failed because it had too little memory, else ``error``.

    The sampler had too little memory if the kernel killed it, or if vLLM found that its key-value cache does
    not fit. ``kills``: how many processes the kernel had killed at the memory limit when the attempt started.
    """
    if not isinstance(error, SamplerError):
        return error
    if machine.out_of_memory_kills() > kills:
        what = "the kernel killed the sampler at"
    elif _NO_ROOM in str(error):
        what = "the sampler's KV cache does not fit into"
    else:
        return error
    plan = config.plan
    limit = machine.memory_limit()
    held = f" of {mib(limit)}" if limit is not None else ""
    needed = f"; the plan needs at least {plan.least_memory}" if plan and plan.least_memory else ""
    return MemoryExhausted(
        f"{what} the container's memory limit{held}{needed}: raise spec.resources.memory, or lower {_LOWER}"
    )
