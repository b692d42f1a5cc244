"""Decides whether the sampler generates the next batches while the trainer trains on the current one."""

from rft_api.job import RFTJobSpec


def overlaps(spec: RFTJobSpec, apart: bool) -> bool:
    """Return whether the sampler generates the next batch while the trainer trains.

    ``apart`` says whether sampling and training have separate GPUs. Without separate GPUs both use the same
    device, so an overlap would save no time. The job must also allow completions from an earlier adapter
    version (``maxStaleness`` above 0), must not be deterministic, and must sample with vLLM.
    """
    training = spec.training
    wanted = training.max_staleness > 0 and not training.deterministic
    return wanted and apart and spec.sampling.engine == "vllm"


def adapters_in_use(spec: RFTJobSpec, apart: bool) -> int:
    """Return how many adapter versions the sampler uses at the same time. ``apart``: see ``overlaps``.

    With ``maxStaleness`` above 1 several batches are in the sampler, each with its own version. A job with an
    environment samples one batch at a time, so it uses one version.
    """
    if spec.environment is not None or not overlaps(spec, apart):
        return 1
    return spec.training.max_staleness
