"""Whether the next batch is sampled while the last one is trained on."""

from rft_api.job import RFTJobSpec


def overlaps(spec: RFTJobSpec, gpus: int) -> bool:
    """Return whether generation overlaps training in a run on so many GPUs.

    It does where both have GPUs of their own and the policy that samples may be one adapter version behind
    the one that is trained. On one GPU, and on the CPU, either would only take from the other.
    """
    training = spec.training
    wanted = training.max_staleness > 0 and not training.deterministic
    return wanted and gpus >= 2 and spec.sampling.engine == "vllm"
