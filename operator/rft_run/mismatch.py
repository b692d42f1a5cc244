"""Limits how much the sampler's and the trainer's log-probabilities of the same tokens may differ. Above a
lower limit the user gets advice, above higher limits the run stops.

Two numbers measure the difference: Schulman's estimate k3 of the KL, and the mean absolute difference of the
log-probabilities. Each is a mean over the sampled tokens.

Sampler and trainer may differ much in a single token, for example if they route the token to different
experts. Such a token raises the KL much, but the mean absolute difference only a little. So a run stops only
if both numbers are above their limits. docs/how-a-run-works.md says how the limits were chosen.
"""

from dataclasses import dataclass

STOP_KL = 0.1
"""A run stops if the KL between sampler and trainer is above this limit, in nats per token, and the mean
absolute difference is above ``STOP_MEAN_ABS`` too."""
STOP_MEAN_ABS = 0.1
"""A run stops if the mean absolute difference between the sampler's and the trainer's log-probability of a
token is above this limit, in nats, and the KL is above ``STOP_KL`` too."""
ADVICE_KL = 0.02
"""The user gets advice if the KL between sampler and trainer is at least this number, in nats per token."""
LEAST_TOKENS = 64
"""Least number of sampled tokens for a decision to stop the run. A mismatch over fewer tokens is ignored."""
CAUSES = (
    "likely causes: the sampler does not apply the adapter, or its dtype, its prompt template or its use of"
    " temperature or top-k differs from the trainer's"
)


@dataclass(frozen=True)
class Mismatch:
    """A measured difference between the sampler's and the trainer's log-probabilities of the same tokens.

    - ``kl``: Schulman's estimate k3 of the KL, in nats per token
    - ``mean_abs``: the mean absolute difference of the log-probabilities, in nats
    - ``tokens``: the number of sampled tokens over which both means were computed
    """

    kl: float
    mean_abs: float
    tokens: int

    @property
    def too_large(self) -> bool:
        """Whether sampler and trainer differ so much that the run has to stop: ``kl`` is above ``STOP_KL``,
        and ``mean_abs`` is above ``STOP_MEAN_ABS``.

        False if there are fewer than ``LEAST_TOKENS`` tokens, or if ``kl`` or ``mean_abs`` is NaN.
        """
        enough = self.tokens >= LEAST_TOKENS
        return enough and self.kl > STOP_KL and self.mean_abs > STOP_MEAN_ABS

    def __str__(self) -> str:
        """Return the three numbers as a part of a sentence, for error messages and advice."""
        return (
            f"over {self.tokens} sampled tokens mismatchKl is {self.kl:.3g} and log-probs differ by"
            f" {self.mean_abs:.3g} nats on average"
        )
