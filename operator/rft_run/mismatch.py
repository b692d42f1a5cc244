"""How far the sampler's log-probs may be from the trainer's: where a run stops, and where advice begins.

Tokens are drawn by the sampler, so both numbers are means over its tokens. A single token that both see very
differently, as where a mixture of experts routes it otherwise, moves the KL far and the mean difference
little. So a run stops only where both are above their bounds. docs/how-a-run-works.md says how they were
chosen.
"""

from dataclasses import dataclass

STOP_KL = 0.1
"""KL (k3) per token, in nats, above which the sampler's probabilities are not those of the trainer."""
STOP_MEAN_ABS = 0.1
"""Mean absolute difference of log-probs, in nats, that has to be exceeded too."""
ADVICE_KL = 0.02
"""KL per token above which there is advice."""
LEAST_TOKENS = 64
"""With fewer tokens a mean says too little to stop a run."""
CAUSES = (
    "likely causes: a sampler that does not apply the adapter, other handling of temperature or top-k,"
    " another dtype, another prompt template"
)


@dataclass(frozen=True)
class Mismatch:
    """Means over ``tokens`` sampled tokens, in nats: KL (k3), and absolute difference of log-probs."""

    kl: float
    mean_abs: float
    tokens: int

    @property
    def too_large(self) -> bool:
        """Whether a run has to stop. A value that is not a number is not judged here."""
        enough = self.tokens >= LEAST_TOKENS
        return enough and self.kl > STOP_KL and self.mean_abs > STOP_MEAN_ABS

    def __str__(self) -> str:
        """Return the numbers for a message."""
        return (
            f"over {self.tokens} sampled tokens mismatchKl is {self.kl:.3g} and log-probs differ by"
            f" {self.mean_abs:.3g} nats on average"
        )
