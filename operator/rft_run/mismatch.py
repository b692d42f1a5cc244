"""Decides how much the log-probabilities of sampler and trainer may differ. Above some limits the user gets
advice, or the run stops.

Two numbers measure the difference: Schulman's estimate k3 of the KL, and the mean absolute difference of the
log-probabilities. Both are means over the sampled tokens.

Sampler and trainer may differ much in a single token. This happens for example if they route the token to
different experts. Such a token raises the KL much, but the mean absolute difference only a little. So a run
stops only if both numbers are above their limits. docs/how-a-run-works.md says how the limits were chosen.
"""

from dataclasses import dataclass

STOP_KL = 0.1
"""Limit of the KL between sampler and trainer, in nats per token.

A run stops only if the mean absolute difference is above ``STOP_MEAN_ABS`` too."""
STOP_MEAN_ABS = 0.1
"""Limit of the mean absolute difference between the sampler's and the trainer's log-probability of a token,
in nats.

A run stops only if the KL is above ``STOP_KL`` too."""
ADVICE_KL = 0.02
"""The user gets advice if the KL between sampler and trainer is at least this number, in nats per token."""
LEAST_TOKENS = 64
"""A run does not stop for a mismatch that was measured over fewer tokens than this."""
CAUSES = (
    "likely causes: the sampler does not apply the adapter, or its dtype, its prompt template or its use of"
    " temperature or top-k differs from the trainer's"
)


@dataclass(frozen=True)
class Mismatch:
    """The difference between the log-probabilities of sampler and trainer, as two numbers.

    ``kl`` is Schulman's estimate k3 of the KL, and ``mean_abs`` is the absolute difference. Both are in nats,
    and are means over ``tokens`` sampled tokens.
    """

    kl: float
    mean_abs: float
    tokens: int

    @property
    def too_large(self) -> bool:
        """Whether sampler and trainer differ so much that the run has to stop: ``kl`` and ``mean_abs`` are
        both above their limits.

        False if there are fewer than ``LEAST_TOKENS`` tokens, or if ``kl`` or ``mean_abs`` is NaN.
        """
        enough = self.tokens >= LEAST_TOKENS
        return enough and self.kl > STOP_KL and self.mean_abs > STOP_MEAN_ABS

    def __str__(self) -> str:
        """Return the measured numbers as a text for a message."""
        return (
            f"over {self.tokens} sampled tokens mismatchKl is {self.kl:.3g} and log-probs differ by"
            f" {self.mean_abs:.3g} nats on average"
        )
