"""How far the sampler's log-probs may be from the trainer's: where a run stops, and where advice begins.

Both numbers, the KL and the mean absolute difference, are means over tokens that the sampler has drawn.
Sampler and trainer may differ much in a single token, for example if a mixture of experts routes it to other
experts. Such a token raises the KL much and the mean difference little. So a run stops only if both numbers
are above their bounds. docs/how-a-run-works.md says how the bounds were chosen.
"""

from dataclasses import dataclass

STOP_KL = 0.1
"""The bound of the KL (k3) per token, in nats. A run stops if both numbers are above their bounds."""
STOP_MEAN_ABS = 0.1
"""The bound of the mean absolute difference of log-probs, in nats."""
ADVICE_KL = 0.02
"""KL per token above which there is advice."""
LEAST_TOKENS = 64
"""A run is not stopped for a mean over fewer tokens than this."""
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
