"""Decides whether the sampler generates the next batch while the trainer trains on the current one."""

from rft_api.job import RFTJobSpec


def overlaps(spec: RFTJobSpec, gpus: int) -> bool:
    """Return whether generation overlaps training in a run on ``gpus`` GPUs.

    This is so if sampling and training have separate GPUs, and if the job allows completions from the
    previous adapter version. On one GPU or on the CPU an overlap saves nothing, because both share the
    device.
    """
    training = spec.training
    wanted = training.max_staleness > 0 and not training.deterministic
    return wanted and gpus >= 2 and spec.sampling.engine == "vllm"
