"""Checks that the sampler samples from the policy that is trained.

Before an attempt's first step the sampler loads two probe adapters, one after the other. A probe adapter is a
copy of the policy's adapter with a fixed pattern added, which changes the log-probs of a fixed text. The
sampler's log-probs of this text have to agree with the trainer's. Afterwards the policy's own adapter is
restored, byte for byte.

After each later version is loaded, the log-probs of the text are computed again. If the trainer's log-probs
have changed, but the sampler's are exactly the same as before, the sampler uses an old adapter. While the
sampler samples batches, rounding changes its log-probs. Then its log-probs must have changed by at least the
share ``LEAST_FOLLOWED`` of the trainer's change.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from rft_api.parameters import Dtype
from rft_run.errors import ModelError, SamplerMismatch
from rft_run.mismatch import CAUSES, Mismatch
from rft_trainer.learn.measure import measure
from rft_trainer.learn.packing import Completion, PackedRow
from rft_trainer.learn.policy import Policy
from rft_trainer.learn.ranks import Followers
from rft_trainer.rollout.engine import Request, RolloutEngine, SamplingParameters, rollout_seed
from rft_trainer.rollout.filter import Filter
from rft_trainer.rollout.groups import Rollout, SampledBatch

TEXT = "The answer is 42. First add both numbers, then check the sum again step by step."
LONGEST = 24
"""Maximum number of tokens of the fixed text."""
SHIFT = 0.5
"""A probe adapter is scaled up until the log-prob of a token changes by this much on average, in nats."""
LEAST_SHIFT = 0.5
"""Minimum change of the whole text's log-prob that a probe adapter must cause, in nats.

A smaller change would not show whether the sampler uses the probe adapter.
"""
AGREEMENT: dict[Dtype, float] = {"float32": 0.02, "bfloat16": 0.25}
"""Largest allowed mean difference between the log-probs of sampler and trainer, in nats, by the base model's
dtype."""
MOVED: dict[Dtype, float] = {"float32": 1e-3, "bfloat16": 0.05}
"""If a new adapter version changes the trainer's log-probs of the fixed text by more than this number on
average, in nats, the sampler's log-probs must change too."""
LEAST_FOLLOWED = 0.1
"""While the sampler samples batches, its log-probs of the fixed text must change by at least this share of
the trainer's change."""
LEAST_DRAWN: dict[Dtype, float] = {"float32": 0.02, "bfloat16": 0.15}
"""Mean difference of log-probs between sampler and trainer, in nats, that is allowed for tokens that the
sampler has drawn, even if the two agree exactly on ``TEXT``.

In bfloat16, a difference of 0.03 was measured for drawn tokens with SmolLM2-135M. The difference on ``TEXT``
may be much smaller.
"""
NOISE_FACTOR = 4.0
"""For tokens that the sampler has drawn, sampler and trainer may differ by this many times their difference
for ``TEXT``, if this is more than ``LEAST_DRAWN``. The upper limit is ``AGREEMENT``."""
DRAWN_TOKENS, DRAWS = 16, 4
PREFLIGHT_TOKENS = 512
_PLAIN = Filter(1.0, 0, 1.0)
_SCALES = [2.0**power for power in range(-12, 5)]


@dataclass(frozen=True)
class Answers:
    """The log-probs of the tokens of a fixed text with one adapter, in nats.

    - ``trainer``, ``sampler``: the log-probs that the trainer and the sampler have computed.
    - ``alone``: whether the sampler computed only this text. If it also computed other requests, ``sampler``
      may differ a little by rounding.
    """

    trainer: list[float]
    sampler: list[float]
    alone: bool = True


class SamplerProbe:
    """A check that the sampler uses the adapters that it loads. It compares log-probs of a fixed text."""

    def __init__(
        self,
        policy: Policy,
        engine: RolloutEngine,
        followers: Followers,
        adapters: Path,
        dtype: Dtype,
        check: Callable[[], None],
    ) -> None:
        """Prepare the check. Nothing is compared yet.

        - ``adapters``: the folder, in the run's folder, into which the probe adapters are written.
        - ``dtype``: the dtype of the base model, which decides how large a difference is allowed.
        - ``check``: raises Fenced if a newer attempt owns the run's folder.
        """
        self._policy, self._engine, self._followers = policy, engine, followers
        self._adapters, self._dtype, self._check = adapters, dtype, check
        self._text = tuple(policy.tokenizer.encode(TEXT)[:LONGEST])
        self._last: Answers | None = None

    def before_training(
        self, prompt: Sequence[int], sampling: SamplingParameters, should_stop: Callable[[], bool]
    ) -> None:
        """Check that sampler and trainer compute the same log-probs with two probe adapters.

        A probe adapter is the policy's adapter with a pattern added, which changes the log-probs of a fixed
        text. These log-probs are compared, and then those of a few tokens that the sampler draws after
        ``prompt`` (token ids). Raises SamplerMismatch if they differ too much, ModelError if no pattern
        changes the log-probs enough, and the sampler's errors.
        """
        with torch.random.fork_rng(), _restored(self._policy) as own:
            base = self._trainer()
            known = {"the base": base}
            for number, sign in enumerate((1.0, -1.0), start=1):
                shift = self._shift(own, sign, list(known.values()))
                tolerance = min(AGREEMENT[self._dtype], shift / 2)
                answers = self._published(f"probe-{number}")
                _refuse_other(answers, known, tolerance, number)
                known[f"probe adapter {number}"] = answers.trainer
                self._last = answers
            noise = _distance(answers.sampler, answers.trainer)
            self._refuse_other_draws(prompt, sampling, noise, should_stop)
        self._engine.use_adapter(None)
        for number in (1, 2):
            shutil.rmtree(self._adapters / f"probe-{number}", ignore_errors=True)

    def trainer_answers(self) -> list[float] | None:
        """Return the trainer's log-probs of the fixed text with the current policy, in nats.

        Return None if ``before_training`` has not been called yet.
        """
        return self._trainer() if self._last is not None else None

    def after_load(self, version: int, trainer: list[float], *, alone: bool = True) -> None:
        """Raise SamplerMismatch if the sampler does not use the adapter version that it has just loaded.

        The log-probs of the fixed text are compared with those of an earlier version. The error is raised if
        the trainer's log-probs have changed by more than ``MOVED``, but the sampler's are the same. If the
        changes are too small to decide, the next version is compared with the same earlier version.

        - ``trainer``: the trainer's log-probs with the new version, in nats.
        - ``alone``: whether the sampler samples nothing else at present. Otherwise rounding may change its
          log-probs. If this was so for one of the two versions, the sampler's log-probs also count as the
          same if they have changed by less than ``LEAST_FOLLOWED`` times the trainer's change.
        """
        assert self._last is not None
        answers = Answers(trainer, self._engine.logprobs(self._text), alone)
        alone = alone and self._last.alone
        moved = _distance(answers.trainer, self._last.trainer)
        followed = _distance(answers.sampler, self._last.sampler)
        same = answers.sampler == self._last.sampler
        if moved > MOVED[self._dtype] and (same or (not alone and followed < LEAST_FOLLOWED * moved)):
            how = "exactly the same as before" if same else f"the same as before to {followed:.3g} nats"
            raise SamplerMismatch(
                f"adapter version {version} is published, but the sampler's log-probs of a fixed text are"
                f" {how}, while the trainer's have changed by"
                f" {moved:.3g} nats per token:"
                " the sampler does not use the new version"
            )
        if moved > MOVED[self._dtype] or (alone and not same):
            self._last = answers

    def refuse_preflight(self, batch: SampledBatch, settings: Filter) -> None:
        """Raise SamplerMismatch if the log-probs of trainer and sampler differ too much on a batch.

        The first rollouts of the batch are compared, until they have at least ``PREFLIGHT_TOKENS`` tokens.
        ``settings``: temperature, top-k and top-p of the sampling.
        """
        pairs: list[tuple[float, float]] = []
        for group in batch.groups:
            for rollout in group.rollouts:
                if len(pairs) < PREFLIGHT_TOKENS and rollout.generated.token_ids:
                    pairs += self._pairs(group.prompt.token_ids, rollout, settings)
        refuse_mismatch(mismatch_of(pairs), "preflight")

    def _pairs(
        self, prompt: Sequence[int], rollout: Rollout, settings: Filter
    ) -> Iterator[tuple[float, float]]:
        """Yield, for each sampled token of a rollout, the trainer's log-prob and the sampler's, in nats.

        ``prompt``: the token ids of the prompt. ``settings``: temperature, top-k and top-p of the sampling.
        """
        if not rollout.segments:
            own = self._trainer_of(prompt, rollout.generated.token_ids, settings)
            yield from zip(own, rollout.generated.logprobs, strict=True)
        for part in rollout.segments:
            own = self._trainer_of(part.prompt_ids, part.token_ids, settings)
            whole = zip(own, part.logprobs, part.sampled, strict=True)
            yield from ((mine, drawn) for mine, drawn, sampled in whole if sampled)

    def _trainer(self) -> list[float]:
        return self._trainer_of(self._text[:1], self._text[1:], _PLAIN)

    def _trainer_of(self, prompt: Sequence[int], ids: Sequence[int], settings: Filter) -> list[float]:
        row = PackedRow(tuple(prompt), (Completion(tuple(ids), (0.0,) * len(ids), 0.0),))
        found: list[float] = measure(self._policy, self._followers, [row], settings).filtered_N.tolist()
        return found

    def _shift(self, saved: list[torch.Tensor], sign: float, others: list[list[float]]) -> float:
        """Change LoRA's B matrices so that the log-probs of the fixed text differ from all ``others``.

        Returns the mean difference per token from the nearest of ``others``, in nats.

        - ``saved``: the B matrices of the policy. A fixed random pattern is added to them.
        - ``sign``: 1 or -1. The pattern is multiplied by it.
        - ``others``: the log-probs of the text with other adapters.

        The pattern is scaled up until the difference is at least ``SHIFT``. If no scale reaches ``SHIFT``,
        the scale with the largest difference is used. Raises ModelError if this difference, summed over the
        text, is less than ``LEAST_SHIFT``.
        """
        best, best_scale = 0.0, 0.0
        for scale in _SCALES:
            self._set_pattern(saved, sign * scale)
            found = self._trainer()
            shift = min(_distance(found, other) for other in others)
            if shift > best:  # false for a NaN
                best, best_scale = shift, scale
            if best >= SHIFT:
                break
        if best * (len(self._text) - 1) < LEAST_SHIFT:
            raise ModelError(
                f"no scale of the LoRA adapter changes the log-probs of {len(self._text) - 1} tokens by"
                f" {LEAST_SHIFT} nats: training would have no effect"
            )
        self._set_pattern(saved, sign * best_scale)
        return best

    def _set_pattern(self, saved: list[torch.Tensor], scale: float) -> None:
        own = torch.Generator().manual_seed(0)
        for factor, before in zip(self._policy.output_factors(), saved, strict=True):
            pattern = torch.randn(factor.shape, generator=own).to(factor.device, factor.dtype)
            factor.data.copy_(before + scale * pattern)

    def _published(self, name: str) -> Answers:
        self._engine.use_adapter(self._policy.save_named(self._adapters, name, self._check))
        return Answers(self._trainer(), self._engine.logprobs(self._text))

    def _refuse_other_draws(
        self,
        prompt: Sequence[int],
        sampling: SamplingParameters,
        noise: float,
        should_stop: Callable[[], bool],
    ) -> None:
        """Raise SamplerMismatch if trainer and sampler give a few drawn tokens too different log-probs.

        The sampler draws the tokens after ``prompt`` with the run's sampling parameters. ``noise`` is the
        mean difference of log-probs for the fixed text, in nats, which only rounding causes. At temperatures
        below 1 a larger difference is allowed for the drawn tokens.
        """
        drawn = sampling.effective()
        most = min(AGREEMENT[self._dtype], max(LEAST_DRAWN[self._dtype], NOISE_FACTOR * noise))
        tolerance = most / min(1.0, drawn.temperature)
        short = SamplingParameters(
            drawn.temperature, drawn.top_p, drawn.top_k, min(DRAWN_TOKENS, drawn.max_tokens)
        )
        requests = [Request(tuple(prompt), rollout_seed("probe", n), short) for n in range(DRAWS)]
        settings = Filter(drawn.temperature, drawn.top_k, drawn.top_p)
        pairs: list[tuple[float, float]] = []
        for made in self._engine.generate(requests, should_stop):
            own = self._trainer_of(prompt, made.token_ids, settings)
            pairs += zip(own, made.logprobs, strict=True)
        found = mismatch_of(pairs)
        if not found.mean_abs <= tolerance:
            raise SamplerMismatch(
                f"before the first step, {found}, more than the allowed {tolerance:.3g}: the log-probs of a"
                " fixed text agree, so sampler and trainer apply temperature, top-k or top-p differently; "
                + CAUSES
            )


def refuse_mismatch(found: Mismatch, when: str) -> None:
    """Raise SamplerMismatch if the log-probs of sampler and trainer differ too much to continue the run.

    ``found``: the measured difference. ``when``: the beginning of the error's message, such as ``step 3``.
    """
    if found.too_large:
        raise SamplerMismatch(f"{when}: {found}: {CAUSES}")


def mismatch_of(pairs: Sequence[tuple[float, float]]) -> Mismatch:
    """Return the difference between the log-probs of trainer and sampler: KL and mean absolute difference.

    ``pairs``: for each token that the sampler drew, its log-prob by the trainer and by the sampler, in nats.
    Without tokens both differences are 0.
    """
    if not pairs:
        return Mismatch(0.0, 0.0, 0)
    differences = torch.tensor([own - drawn for own, drawn in pairs], dtype=torch.float64)
    kl = float((differences.exp() - differences - 1).mean())
    return Mismatch(kl, float(differences.abs().mean()), len(pairs))


def _refuse_other(answers: Answers, known: dict[str, list[float]], tolerance: float, number: int) -> None:
    """Raise SamplerMismatch if sampler and trainer disagree on the log-probs of a fixed text.

    - ``answers``: the log-probs of both with probe adapter ``number``.
    - ``tolerance``: the largest mean difference per token that is allowed, in nats.
    - ``known``: the trainer's log-probs with other adapters, by the adapter's name. If the sampler's
      log-probs are nearer to those of another adapter, the message names this adapter.
    """
    apart = _distance(answers.sampler, answers.trainer)
    if apart <= tolerance:  # false for a NaN
        return
    nearest = min(known, key=lambda name: _distance(answers.sampler, known[name]))
    hint = (
        f"; the sampler's are nearer to those of {nearest}"
        if _distance(answers.sampler, known[nearest]) < apart
        else ""
    )
    raise SamplerMismatch(
        f"before the first step, probe adapter {number} is published, but the sampler's log-probs of a fixed"
        f" text differ from the trainer's by {apart:.3g} nats per token, more than the allowed"
        f" {tolerance:.3g}{hint}: {CAUSES}"
    )


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    return fmean(abs(a - b) for a, b in zip(one, other, strict=True))


@contextmanager
def _restored(policy: Policy) -> Iterator[list[torch.Tensor]]:
    """Yield a copy of the policy's LoRA B matrices. On exit, also after an error, put the copy back.

    So the ``with`` block may change the policy's matrices.
    """
    saved = [factor.detach().clone() for factor in policy.output_factors()]
    try:
        yield saved
    finally:
        for factor, before in zip(policy.output_factors(), saved, strict=True):
            factor.data.copy_(before)
