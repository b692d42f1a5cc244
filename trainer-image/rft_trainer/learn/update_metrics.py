"""The metrics of an update of the policy: sums over micro-batches and processes, then means."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class UpdateMetrics:
    """Metrics of an update of the policy: counts, and means over the batch's unmasked completion tokens.

    While the metrics of a single mini-batch are collected, these fields have sums over tokens, not means.
    ``combined`` makes the means.

    - ``loss``, ``grad_norm``: means over the mini-batches. The norm is that before clipping.
    - ``kl``: the KL between policy and reference, in nats. None without a KL term.
    - ``entropy``: of the filtered distribution, in nats. None if no token was computed, for example because
      all groups have equal rewards.
    - ``clip_fraction``: the share of tokens whose loss was changed by the clipping of the importance ratio.
    - ``mismatch_kl``, ``mismatch_mean_abs``: the KL and the mean absolute difference of log-probs between
      sampler and trainer, in nats.
    - ``outside_filter_tokens``: number of tokens that top-k or top-p would remove in the trainer.
    - ``bounded_fraction``: the share of tokens whose mismatch weight was changed by a bound.
    - ``forward_tokens``: number of tokens of all forward passes with gradients, with padding.
    """

    loss: float = 0.0
    kl: float | None = None
    entropy: float | None = 0.0
    clip_fraction: float = 0.0
    mismatch_kl: float = 0.0
    mismatch_mean_abs: float = 0.0
    outside_filter_tokens: int = 0
    bounded_fraction: float = 0.0
    grad_norm: float = 0.0
    steps: int = 0
    """Number of steps that the optimizer made."""
    forward_tokens: int = 0
    tokens: int = 0
    """Number of unmasked completion tokens. The means are over these tokens."""

    @property
    def moved(self) -> bool:
        """Whether an optimizer step has changed the adapter."""
        return self.steps > 0

    def sums(self) -> list[float]:
        """Return the values that are summed over the processes of distributed training. 0 for None."""
        return [float(getattr(self, name) or 0) for name in _SUMS]

    def set_sums(self, values: Sequence[float]) -> None:
        """Set the metrics to ``values``: sums over processes, in the order of the result of ``sums``."""
        for name, value in zip(_SUMS, values, strict=True):
            self.set_sum(name, value)

    def set_sum(self, name: str, value: float) -> None:
        """Set the field ``name`` to the sum ``value``. A field with None is not measured: it stays None."""
        if getattr(self, name) is not None:
            setattr(self, name, type(getattr(self, name))(value))


_SUMS = (
    "loss",
    "kl",
    "entropy",
    "clip_fraction",
    "mismatch_kl",
    "mismatch_mean_abs",
    "outside_filter_tokens",
    "forward_tokens",
    "bounded_fraction",
    "tokens",
)


def combined(parts: Sequence[UpdateMetrics]) -> UpdateMetrics:
    """Return the metrics of a whole batch, as means. ``parts``: the metrics of its mini-batches, as sums."""
    whole = UpdateMetrics(kl=parts[0].kl)
    whole.set_sums([sum(column) for column in zip(*(part.sums() for part in parts), strict=True)])
    trained = [part for part in parts if part.tokens] or parts
    whole.loss = sum(part.loss for part in trained) / len(trained)
    whole.grad_norm = sum(part.grad_norm for part in trained) / len(trained)
    whole.steps = sum(part.steps for part in parts)
    _to_means(whole)
    return whole


def _to_means(metrics: UpdateMetrics) -> None:
    """Divide the sums over tokens in ``metrics`` by the number of unmasked tokens, to get means."""
    tokens = max(1, metrics.tokens)
    metrics.entropy = metrics.entropy / tokens if metrics.tokens and metrics.entropy is not None else None
    metrics.clip_fraction /= tokens
    metrics.mismatch_kl /= tokens
    metrics.mismatch_mean_abs /= tokens
    metrics.bounded_fraction /= tokens
    if metrics.kl is not None:
        metrics.kl /= tokens
