"""Preflight: samples a few prompts before training and warns when training would be useless.

Where the base model never gets a reward, a run would train for hours on nothing. Where a grader fails on
every completion it ends before the first step.
Each check is a pure function from the sampled batch to a finding; ``CHECKS`` is their order.
"""

import json
import logging
from collections.abc import Callable

from rft_api.status import Recommendation
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
    """A grader gave no score to any completion."""
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
    """Every group was dropped, because its completions could not be graded."""
    if any(not group.dropped for group in batch.groups):
        return None
    return _finding(
        "preflight-nothing-graded",
        "spec.graders",
        f"of {len(batch.groups)} prompts none has two graded completions: there is nothing to compare",
    )


def no_variance(batch: SampledBatch) -> Recommendation | None:
    """Within every group all rewards are equal, so all advantages are zero."""
    graded = batch.kept
    if not graded or not all(group.flat for group in graded):
        return None
    rewards = [reward(rollout) for group in graded for rollout in group.accepted]
    alike = zero_variance(rewards)
    seen = f"{rewards[0]:.2f}" if alike else f"{min(rewards):.2f} to {max(rewards):.2f}, the same within each"
    shown = _short(graded[0].accepted[0].generated.text)
    return _finding(
        "preflight-no-variance",
        "spec.graders" if max(rewards) <= 0 else "spec.sampling.temperature",
        f"{len(rewards)} completions of {len(graded)} prompts score {seen}: {_why(rewards)}. A completion:"
        f" {shown!r}",
    )


def _why(rewards: list[float]) -> str:
    if max(rewards) <= 0:
        return (
            "the base model never earns anything, so nothing can be learned; give partial credit, easier rows"
            " or a clearer instruction, or check that the grader finds right answers"
        )
    if min(rewards) >= 1:
        return "the base model earns everything already; take harder rows or a stricter grader"
    return "rollouts of a prompt do not differ; raise the temperature, or grade finer"


def always_cut(batch: SampledBatch) -> Recommendation | None:
    """Every completion was cut at ``maxTokens``."""
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
    """Return the findings of all checks, most important first; empty: nothing speaks against training."""
    return [found for check in CHECKS if (found := check(batch)) is not None]


def saved(folder: RunFolder) -> list[Recommendation] | None:
    """Return the findings that an earlier attempt saved; ``None`` where there are none saved."""
    try:
        found = json.loads(folder.preflight.read_text(encoding="utf-8"))
        return [Recommendation.model_validate(entry) for entry in found["findings"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(folder: RunFolder, found: list[Recommendation]) -> None:
    """Save the findings for later attempts. Raises VolumeError."""
    files.write_json(folder.preflight, {"findings": [entry.dump() for entry in found]})


def broken(found: list[Recommendation]) -> list[Recommendation]:
    """Return the findings that a grader always fails: no step could be graded by it."""
    return [finding for finding in found if finding.rule == _GRADER_FAILS]


def refuse_broken(found: list[Recommendation]) -> None:
    """Raise UserCodeError where a grader failed on all completions."""
    if said := broken(found):
        messages = "; ".join(f"{finding.parameter}: {finding.message}" for finding in said)
        raise UserCodeError(f"{messages}; preflight: off trains all the same")


def warn(found: list[Recommendation]) -> None:
    """Log the findings."""
    for finding in found:
        log.warning("preflight: %s: %s", finding.parameter, finding.message)


def _finding(rule: str, parameter: str, message: str) -> Recommendation:
    return Recommendation(rule=rule, parameter=parameter, message=message)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
