"""Preflight: checks the rewards of a few prompts before training, and warns if training would have no effect.

If the base model never gets a reward, a run would train for hours without effect. If a grader fails on every
completion, the run ends before the first step. Each check is a pure function from the sampled batch to a
finding. ``CHECKS`` lists the checks in order.
"""

import logging
from collections.abc import Callable

from rft_api.status import Recommendation
from rft_run import run_files, wire
from rft_run.errors import UserCodeError
from rft_run.folder import RunFolder
from rft_trainer import files
from rft_trainer.rollout.advantages import zero_variance
from rft_trainer.rollout.groups import SampledBatch, reward

log = logging.getLogger(__name__)

PROMPTS = 16
_SHOWN = 200
_GRADER_FAILS = "preflight-grader-fails"

Check = Callable[[SampledBatch], Recommendation | None]


def grader_always_fails(batch: SampledBatch) -> Recommendation | None:
    """Return a finding if a grader failed on every completion."""
    broken = [name for name, count in batch.scores.error_counts.items() if count == len(batch.scores)]
    if not broken:
        return None
    first = batch.scores.first_errors
    said = "; ".join(f"{name}: {_short(first[name])}" for name in broken)
    return _finding(
        _GRADER_FAILS,
        "spec.graders",
        f"{', '.join(broken)} failed on all {len(batch.scores)} completions of the base model ({said}):"
        " correct the grader, or the fields of the rows that it reads",
    )


def nothing_graded(batch: SampledBatch) -> Recommendation | None:
    """Return a finding if no prompt has two graded completions. Then no group can be used for training."""
    if any(not group.dropped for group in batch.groups):
        return None
    return _finding(
        "preflight-nothing-graded",
        "spec.graders",
        f"none of {len(batch.groups)} prompts has two graded completions: there is nothing to compare",
    )


def no_variance(batch: SampledBatch) -> Recommendation | None:
    """Return a finding if all rewards within every group are equal, so that all advantages are zero."""
    graded = batch.kept
    if not graded or not all(group.flat for group in graded):
        return None
    rewards = [reward(rollout) for group in graded for rollout in group.accepted]
    alike = zero_variance(rewards)
    spread = f"{min(rewards):.2f} to {max(rewards):.2f}, always equal for the same prompt"
    seen = f"{rewards[0]:.2f}" if alike else spread
    shown = _short(graded[0].accepted[0].generated.text)
    return _finding(
        "preflight-no-variance",
        "spec.graders" if max(rewards) <= 0 else "spec.sampling.temperature",
        f"{len(rewards)} completions of {len(graded)} prompts score {seen}: {_why(rewards)}. An example of a"
        f" completion: {shown!r}",
    )


def _why(rewards: list[float]) -> str:
    if max(rewards) <= 0:
        return (
            "the base model never gets a reward above 0, so training would have no"
            " effect; give partial credit, use easier"
            " rows or a clearer instruction, or check that the grader accepts right answers"
        )
    if min(rewards) >= 1:
        return "the base model already gets the full reward; use harder rows or a stricter grader"
    return "all rollouts of a prompt get equal rewards; raise the temperature, or use a finer grader"


def always_cut(batch: SampledBatch) -> Recommendation | None:
    """Return a finding if every completion was cut at ``maxTokens``."""
    generated = [rollout.generated for group in batch.groups for rollout in group.rollouts]
    if not generated or not all(completion.truncated for completion in generated):
        return None
    return _finding(
        "preflight-always-cut",
        "spec.sampling.maxTokens",
        f"all {len(generated)} completions of the base model were cut at maxTokens: raise it, or ask for"
        " shorter answers",
    )


CHECKS: tuple[Check, ...] = (grader_always_fails, nothing_graded, no_variance, always_cut)


def findings(batch: SampledBatch) -> list[Recommendation]:
    """Run all checks on the sampled batch. Return their findings in the order of ``CHECKS``, or []."""
    return [found for check in CHECKS if (found := check(batch)) is not None]


def saved(folder: RunFolder) -> list[Recommendation] | None:
    """Return the preflight findings that an earlier attempt saved. None: no readable findings are saved."""
    try:
        found = run_files.json_of(folder.preflight)
        return [wire.read_object(Recommendation, entry) for entry in found["findings"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(folder: RunFolder, found: list[Recommendation]) -> None:
    """Write the preflight findings into the run's folder, for later attempts. Raises VolumeError."""
    files.write_json(folder.preflight, {"findings": [entry.dump() for entry in found]})


def broken(found: list[Recommendation]) -> list[Recommendation]:
    """Return those of the findings ``found`` that say that a grader failed on every completion."""
    return [finding for finding in found if finding.rule == _GRADER_FAILS]


def refuse_broken(found: list[Recommendation]) -> None:
    """Raise UserCodeError if a finding says that a grader failed on every completion."""
    if said := broken(found):
        messages = "; ".join(f"{finding.parameter}: {finding.message}" for finding in said)
        raise UserCodeError(f"{messages}; to train anyway, set spec.preflight: off")


def warn(found: list[Recommendation]) -> None:
    """Log each finding as a warning."""
    for finding in found:
        log.warning("preflight: %s: %s", finding.parameter, finding.message)


def _finding(rule: str, parameter: str, message: str) -> Recommendation:
    return Recommendation(rule=rule, parameter=parameter, message=message)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
