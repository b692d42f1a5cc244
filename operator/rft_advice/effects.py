"""Advice rules for fields that have no effect because of the values of other fields."""

from pydantic.alias_generators import to_camel

from rft_advice import bands
from rft_advice.rule import AdviceRule
from rft_api.effective import effective
from rft_api.job import RFTJobSpec
from rft_planner.overlap import overlaps

DEFAULTS = bands.TRAINING
_CLIPS = ("clip_low", "clip_high")
_STALE = ("stale_token_low", "stale_token_high", "stale_sequence_low", "stale_sequence_high")
_LIKE_GRPO = ("dapo", "gspo", "cispo")


def clip_without_effect(spec: RFTJobSpec) -> str | None:
    """Return a message if ``clipLow`` or ``clipHigh`` is set but has no effect, because there is one update
    per batch. Else return None.

    With one update per batch the probability ratio is always 1, and nothing is clipped.
    """
    training = spec.training
    given = [
        f"{to_camel(name)} {value:g}" for name in _CLIPS if (value := getattr(training, name)) is not None
    ]
    if training.updates_per_batch > 1 or not given:
        return None
    return (
        f"{training.updates_per_batch}, so {_listed(given)} cannot have an effect: with one update per batch"
        " the probability ratio is always 1; use updatesPerBatch 2 or more, or leave the clip distances out"
    )


def objective_like_grpo(spec: RFTJobSpec) -> str | None:
    """Return a message if the objective (dapo, gspo or cispo) has the same gradient as grpo, because there is
    one update per batch. Else return None.

    These objectives use the probability ratio in another way than grpo. With one update per batch this ratio
    is always 1. There is no message if ``overlongPenalty`` or ``refillRounds`` is above 0.
    """
    training, found = spec.training, effective(spec, uid="")
    if training.objective not in _LIKE_GRPO or training.updates_per_batch > 1:
        return None
    if found.overlong_penalty > 0 or found.refill_rounds > 0:
        return None
    return (
        f"{training.objective} with updatesPerBatch {training.updates_per_batch} has the gradient of grpo"
        f" with klBeta {found.kl_beta:g} and lossAggregation {found.loss_aggregation}. The two objectives"
        " differ only in how they clip the probability ratio, but with one update per batch this ratio is"
        " always 1; use updatesPerBatch 2 or more"
    )


def stale_bounds_without_effect(spec: RFTJobSpec) -> str | None:
    """Return a message if bounds for stale batches are set, but no batch of this job can be stale. Else
    return None.

    A batch is stale if it was sampled with older weights than the weights that are trained on it.
    """
    training = spec.training
    given = [
        f"{to_camel(name)} {getattr(training, name):g}"
        for name in _STALE
        if getattr(training, name) != getattr(DEFAULTS, name)
    ]
    if not given or overlaps(spec, apart=True):
        return None
    return (
        f"{training.max_staleness}, and {_listed(given)} cannot have an effect: since {_in_turn(spec)}, no"
        " batch is sampled with older weights than those that are trained on it"
    )


def _in_turn(spec: RFTJobSpec) -> str:
    """Return, as part of a message, why this job never generates and trains at the same time: the field that
    prevents it, and its value.
    """
    if spec.training.max_staleness == 0:
        return "maxStaleness is 0"
    return "deterministic is true" if spec.training.deterministic else f"engine is {spec.sampling.engine}"


def _listed(names: list[str]) -> str:
    return " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} and {names[-1]}"


_UPDATES = "spec.training.updatesPerBatch"

RULES: tuple[AdviceRule, ...] = (
    AdviceRule(
        "clip-without-effect",
        (_UPDATES, "spec.training.clipLow", "spec.training.clipHigh"),
        (),
        "clipLow or clipHigh is set and updatesPerBatch is 1",
        "With one update per batch the probability ratio is 1, and nothing is clipped.",
        clip_without_effect,
    ),
    AdviceRule(
        "objective-like-grpo",
        ("spec.training.objective", _UPDATES),
        (),
        f"objective is {', '.join(_LIKE_GRPO[:-1])} or {_LIKE_GRPO[-1]}, updatesPerBatch is 1, and neither"
        " refillRounds nor overlongPenalty is above 0",
        "With one update per batch these objectives differ from grpo by klBeta and lossAggregation alone.",
        objective_like_grpo,
    ),
    AdviceRule(
        "stale-bounds-without-effect",
        ("spec.training.maxStaleness", *(f"spec.training.{to_camel(name)}" for name in _STALE)),
        (),
        "a bound for stale batches is set, but no batch can be stale: maxStaleness is 0, or deterministic is"
        " true, or engine is transformers",
        "The bounds apply only to batches that were sampled with older weights.",
        stale_bounds_without_effect,
    ),
)
