"""Suggests the next experiments for a goal, such as better quality, for ``rft suggest``. Each experiment is a
new job that differs from the user's job in one parameter.

The goals come from the section "Common Patterns" of the tuning guide.
"""

import copy
import hashlib
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple

from rft_advice import Advice, advise, bands
from rft_advice.baseline import ANNOTATION
from rft_advice.guide import value_of
from rft_api.fields import find
from rft_api.job import MAX_NAME_LENGTH, RFTJob, RFTJobSpec
from rft_api.validation import check, parse


class Goal(StrEnum):
    """The goal of an experiment, a new job with one changed parameter: what its run should improve."""

    FASTER_CONVERGENCE = "faster-convergence"
    BETTER_QUALITY = "better-quality"
    SAFER = "safer"
    MORE_CREATIVE = "more-creative"
    LOWER_COST = "lower-cost"
    HIGHER_CAPACITY = "higher-capacity"
    PREVENT_OVERFITTING = "prevent-overfitting"


_KEPT_METADATA = ("namespace", "labels", "annotations")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_SWITCHES = ("suspend", "cancel")
"""Fields of the spec that suspend or cancel a run. They are not copied into the manifest of a new job."""


class ParameterStep(NamedTuple):
    """A change of one parameter that may help to reach a goal. ``path`` is the path of the parameter, and
    ``why`` says how the change helps.
    """

    path: str
    next: Callable[[Any], Any | None]
    """A function from the current value to the next value to try. It returns ``None`` if there is no such
    value.
    """
    why: str


class Experiment(NamedTuple):
    """A suggested new job that differs from the user's job, its baseline, in one parameter.

    ``path`` is the path of the parameter. ``old`` and ``new`` are its values in the user's job and in the new
    job. ``why`` says how the change helps. ``manifest`` is the manifest of the new job.
    """

    path: str
    old: Any
    new: Any
    why: str
    manifest: dict[str, Any]
    advice: tuple[Advice, ...]
    """The warnings about the new job's parameters, without those that also apply to the user's job."""

    @property
    def name(self) -> str:
        """The name of the new job: ``metadata.name`` of the manifest."""
        return str(self.manifest["metadata"]["name"])


class Suggestions(NamedTuple):
    """The suggested experiments for a goal. Each is a new job with one changed parameter. Also lists the
    parameters that could help to reach the goal, but have no further value to try.
    """

    experiments: tuple[Experiment, ...]
    exhausted: tuple[str, ...]
    """One text for each parameter without a further value, with its path and its current value."""


def _up_through(band: tuple[float, ...], value: float) -> float | None:
    """Return the first value of ``band`` above ``value``, or None if there is none. ``band`` is in ascending
    order.
    """
    return next((step for step in band if step > value), None)


def _down_through(band: tuple[float, ...], value: float) -> float | None:
    """Return the first value of ``band`` below ``value``, or None if there is none. ``band`` is in descending
    order.
    """
    return next((step for step in band if step < value), None)


def _halve(value: int, least: int) -> int | None:
    half = max(value // 2, least)
    return half if half < value else None


def _faster_rate(value: float) -> float | None:
    """Return a higher learning rate to try: the default if ``value`` is below it, else 1.5 times ``value``.

    Return None if the higher rate would be ``LEARNING_RATE_FACTOR`` times the default, or more.
    """
    default = bands.TRAINING.learning_rate
    higher = default if value < default else float(f"{1.5 * value:.2g}")
    return higher if value < higher < default * bands.LEARNING_RATE_FACTOR else None


def _one_more_epoch(value: int) -> int | None:
    return value + 1 if value + 1 < bands.MANY_EPOCHS else None


def _lower_top_k(value: int) -> int | None:
    # With 0, top-k is off and limits nothing. So the default is the next lower value to try.
    return bands.SAMPLING.top_k if value == 0 else _halve(value, bands.FEW_TOP_K)


def _double(value: int) -> int:
    return 2 * value


def _to(target: float, value: float) -> float | None:
    return target if value != target else None


def _ranks(rising: bool) -> tuple[int, ...]:
    return tuple(sorted(find(_RANK).choices, reverse=not rising))


_RATE, _EPOCHS = "spec.training.learningRate", "spec.training.epochs"
_RANK, _BATCH = "spec.training.loraRank", "spec.training.batchSizeTokens"
_TEMPERATURE, _TOP_P = "spec.sampling.temperature", "spec.sampling.topP"
_TOP_K, _ROLLOUTS = "spec.sampling.topK", "spec.sampling.numRollouts"
_MAX_TOKENS = "spec.sampling.maxTokens"

_CREATIVE = bands.CREATIVE_TEMPERATURE
_LEAST_BATCH = bands.TRAINING.batch_size_tokens // bands.BATCH_FACTOR

STEPS: dict[Goal, tuple[ParameterStep, ...]] = {
    Goal.FASTER_CONVERGENCE: (
        ParameterStep(
            _EPOCHS,
            _one_more_epoch,
            "with more passes over the rows the reward rises further before the run ends",
        ),
        ParameterStep(_RATE, _faster_rate, "larger optimizer steps learn more in the same time"),
    ),
    Goal.BETTER_QUALITY: (
        ParameterStep(
            _TEMPERATURE, partial(_up_through, _CREATIVE), "more diverse rollouts find better answers"
        ),
        ParameterStep(_ROLLOUTS, partial(_up_through, bands.QUALITY_ROLLOUTS), "more answers to compare"),
        ParameterStep(
            _MAX_TOKENS, _double, "completions have room for longer reasoning and complete answers"
        ),
    ),
    Goal.SAFER: (
        ParameterStep(
            _TEMPERATURE,
            partial(_down_through, bands.PRECISE_TEMPERATURE[::-1]),
            "with a less random choice of tokens, answers are more precise and less toxic",
        ),
        ParameterStep(
            _TOP_P, partial(_down_through, bands.FOCUSED_TOP_P[1:]), "unlikely tokens are no longer sampled"
        ),
        ParameterStep(_TOP_K, _lower_top_k, "with fewer candidate tokens, answers are more focused"),
    ),
    Goal.MORE_CREATIVE: (
        ParameterStep(
            _TEMPERATURE,
            partial(_up_through, _CREATIVE),
            "a more random choice of tokens makes answers more diverse",
        ),
        ParameterStep(
            _TOP_P,
            partial(_to, bands.DIVERSE_TOP_P),
            "only the most unlikely tokens are no longer sampled, and answers stay diverse",
        ),
    ),
    Goal.LOWER_COST: (
        ParameterStep(
            _ROLLOUTS,
            lambda value: _halve(value, int(find(_ROLLOUTS).minimum or 0)),
            "fewer completions to generate",
        ),
        ParameterStep(
            _MAX_TOKENS, lambda value: _halve(value, bands.SHORT_COMPLETION), "shorter completions cost less"
        ),
        ParameterStep(
            _BATCH, lambda value: _halve(value, _LEAST_BATCH), "a step with a smaller batch needs less memory"
        ),
    ),
    Goal.HIGHER_CAPACITY: (
        ParameterStep(
            _RANK,
            lambda value: _up_through(_ranks(True), value),
            "a larger adapter can learn more; it needs more GPU memory",
        ),
    ),
    Goal.PREVENT_OVERFITTING: (
        ParameterStep(
            _EPOCHS, partial(_down_through, (bands.TRAINING.epochs,)), "fewer passes memorize less"
        ),
        ParameterStep(
            _RANK, lambda value: _down_through(_ranks(False), value), "a smaller adapter memorizes less"
        ),
    ),
}


def suggest(document: Mapping[str, Any], goal: Goal) -> Suggestions:
    """Return experiments that may help to reach a goal. Each is a new job that differs from the user's job in
    one parameter. ``document`` is the manifest of the user's job.

    A parameter is listed as exhausted if it has no next value for the goal, or if the next value is outside
    the documented range or makes the spec invalid.

    Raises:
        InvalidManifest: if ``document`` is not a valid RFTJob.
    """
    job = parse(document)
    experiments, exhausted = [], []
    for step in STEPS[goal]:
        experiment = _experiment(document, job, step)
        if experiment is not None:
            experiments.append(experiment)
        else:
            exhausted.append(f"{step.path} {_text(value_of(job.spec, step.path))}")
    return Suggestions(tuple(experiments), tuple(exhausted))


def other_goals(document: Mapping[str, Any], goal: Goal) -> list[Goal]:
    """Return the goals other than ``goal`` for which ``suggest`` finds at least one experiment, a new job
    with one changed parameter. ``document`` is the manifest of the user's job.
    """
    return [other for other in Goal if other != goal and suggest(document, other).experiments]


def _experiment(document: Mapping[str, Any], job: RFTJob, step: ParameterStep) -> Experiment | None:
    old = value_of(job.spec, step.path)
    new = step.next(old)
    if new is None or new == old or not find(step.path).allows(new):
        return None
    manifest = _manifest(document, job.metadata.name, step.path, new)
    changed, problems = check(manifest)
    if changed is None or problems:
        return None
    return Experiment(step.path, old, new, step.why, manifest, _new_advice(job.spec, changed.spec))


def _new_advice(before: RFTJobSpec, after: RFTJobSpec) -> tuple[Advice, ...]:
    known = {advice.rule for advice in advise(before)}
    return tuple(advice for advice in advise(after) if advice.rule not in known)


def _manifest(document: Mapping[str, Any], baseline: str, path: str, value: Any) -> dict[str, Any]:
    """Return the manifest of a new job: the user's manifest ``document`` with the field at ``path`` set to
    ``value``. ``baseline`` is the name of the user's job.
    """
    spec = copy.deepcopy(dict(document["spec"]))
    _, section, field = path.split(".")
    # A section without fields is valid YAML. Its value is then null.
    spec[section] = {**(spec.get(section) or {}), field: value}
    return variant(document, experiment_name(baseline, field, value), spec)


def variant(document: Mapping[str, Any], name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest of a new job with the given name and spec, and with labels and annotations of the
    job in ``document``. An annotation names that job as the baseline.

    These fields are left out: those that suspend or cancel a run, and metadata that the API server added.
    ``spec.output`` is left out if it is the same as in ``document``, because the new job would overwrite the
    result of that job.
    """
    found = copy.deepcopy(dict(document["metadata"]))
    metadata = {key: found[key] for key in _KEPT_METADATA if found.get(key)}
    annotations = {k: v for k, v in metadata.get("annotations", {}).items() if k != _LAST_APPLIED}
    return {
        "apiVersion": document["apiVersion"],
        "kind": document["kind"],
        "metadata": {
            "name": name,
            **metadata,
            "annotations": {**annotations, ANNOTATION: str(found["name"])},
        },
        "spec": {
            key: part
            for key, part in spec.items()
            if key not in _SWITCHES and not (key == "output" and part == document["spec"].get("output"))
        },
    }


def left_out(document: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """Return a sentence for the user if ``spec.output`` of the earlier job was not copied into the new job.
    Return "" if it was copied, or if the earlier job had none.

    ``document`` is the manifest of the earlier job, and ``manifest`` that of the new job.
    """
    if not document["spec"].get("output") or manifest["spec"].get("output"):
        return ""
    name = document["metadata"]["name"]
    return f"spec.output is left out, so that the result of {name} is not overwritten"


def experiment_name(baseline: str, field: str, value: Any) -> str:
    """Return a name for a new job: the name of its baseline, the changed field and its new value, such as
    ``arithmetic-lorarank-16``.

    If this would be too long, the baseline's name is truncated, and a hash of this name is added.
    """
    digits = _text(value).lower().replace(".", "-").replace("+", "")
    suffix = f"-{field.lower()}-{digits}"
    if len(baseline) + len(suffix) <= MAX_NAME_LENGTH:
        return baseline + suffix
    # With the hash, two baselines whose long names begin alike do not get experiments of the same name.
    suffix = f"-{hashlib.sha256(baseline.encode()).hexdigest()[:6]}{suffix}"
    return baseline[: MAX_NAME_LENGTH - len(suffix)].rstrip("-") + suffix


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
