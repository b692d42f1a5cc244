"""Decides whether sampling and training overlap: whether the next batch is sampled during an update."""

from rft_api.job import RFTJobSpec


def overlaps(spec: RFTJobSpec, apart: bool) -> bool:
    """Return whether the sampler generates the next batch while the trainer trains on the current batch.

    ``apart`` says whether sampling and training have separate GPUs. This is required, because an overlap on
    the same GPUs would save no time. The job must also allow completions from an earlier adapter version
    (``maxStaleness`` above 0), must not be deterministic, and must sample with vLLM.
    """
    training = spec.training
    wanted = training.max_staleness > 0 and not training.deterministic
    return wanted and apart and spec.sampling.engine == "vllm"


def adapters_in_use(spec: RFTJobSpec, apart: bool) -> int:
    """Return how many versions of the adapter the sampler uses at the same time.

    ``apart`` says whether sampling and training have separate GPUs. With ``maxStaleness`` above 1 the sampler
    generates several batches at the same time, each with another version. A job with an environment samples
    one batch at a time, so it uses one version.
    """
    if spec.environment is not None or not overlaps(spec, apart):
        return 1
    return spec.training.max_staleness
