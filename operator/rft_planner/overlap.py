"""Decides whether the sampler generates the next batch while the trainer trains on the current one."""

from rft_api.job import RFTJobSpec


def overlaps(spec: RFTJobSpec, apart: bool) -> bool:
    """Return whether generation overlaps training in a run.

    It does if sampling and training have separate GPUs (``apart``), and if the job allows completions from
    the previous adapter version. On shared GPUs or on the CPU an overlap saves no time, because both use the
    same device.
    """
    training = spec.training
    wanted = training.max_staleness > 0 and not training.deterministic
    return wanted and apart and spec.sampling.engine == "vllm"
