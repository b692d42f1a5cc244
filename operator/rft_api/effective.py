"""Computes the effective parameters of a run, such as its seed and its clip distances.

A parameter has the value in the spec. If the user left it out, its value is derived from other values.
"""

import hashlib
from typing import Any, NamedTuple

from rft_api.job import RFTJobSpec
from rft_api.parameters import LossAggregation, Objective
from rft_api.status import Effective


class ObjectiveDefaults(NamedTuple):
    """The default training parameters of one policy-gradient objective, such as GRPO.

    The class ``Training`` describes the parameters, in fields of the same names. ``clip_low`` is None if the
    objective does not clip the probability ratio below.
    """

    clip_low: float | None
    clip_high: float
    kl_beta: float
    loss_aggregation: LossAggregation
    overlong_penalty: float = 0.0
    refill_rounds: int = 0


OBJECTIVE_DEFAULTS: dict[Objective, ObjectiveDefaults] = {
    "grpo": ObjectiveDefaults(0.2, 0.2, 0.001, "token"),
    "dapo": ObjectiveDefaults(0.2, 0.28, 0.0, "token", overlong_penalty=0.5, refill_rounds=3),
    "gspo": ObjectiveDefaults(3e-4, 4e-4, 0.0, "sequence"),
    "drGrpo": ObjectiveDefaults(0.2, 0.2, 0.0, "maxTokens"),
    "cispo": ObjectiveDefaults(None, 0.28, 0.0, "token"),
}


def effective(spec: RFTJobSpec, uid: str, model_context_length: int | None = None) -> Effective:
    """Return the effective parameters of a run: the values in ``spec``, or derived values for absent ones.

    ``uid`` is the UID of the job. The seed is derived from it if ``spec`` has none. ``model_context_length``
    is the longest context of the model in tokens, or None if it is unknown.
    """
    training = spec.training
    defaults = OBJECTIVE_DEFAULTS[training.objective]
    context = training.max_context_length or min(
        training.batch_size_tokens, max(4096, 2 * spec.sampling.max_tokens)
    )
    if model_context_length is not None:
        context = min(context, model_context_length)
    return Effective(
        seed=training.seed if training.seed is not None else seed_from_uid(uid),
        max_context_length=context,
        **{name: _given(getattr(training, name), value) for name, value in defaults._asdict().items()},
    )


def _given(value: Any, default: Any) -> Any:
    return value if value is not None else default


def seed_from_uid(uid: str) -> int:
    """Return the seed of a run, from 0 to 2**31 - 1. It is a hash of the job's UID."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:4]) & 0x7FFFFFFF
