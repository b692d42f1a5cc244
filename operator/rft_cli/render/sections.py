"""Collects the tables and texts of the report about a run, for its HTML page and its Markdown page.

All functions are pure.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rft_advice.run import RUN_RULES
from rft_api.fields import UnknownField, find
from rft_api.status import EvaluationResult, GraderEvaluation
from rft_cli.local.reported import ReportedRun
from rft_cli.render.evaluation import cells
from rft_cli.render.views import NONE, duration
from rft_run.evaluation import EvaluationRecord

DERIVED = "derived"
"""The text in place of a parameter's default, if the default is derived from other parameters."""
CHANGED_ROWS = 3
"""A report shows at most this many held-out rows with the largest rise in reward, and at most this many with
the largest fall.
"""


class Parameter(NamedTuple):
    """A parameter of a run in its report, with its value and its default as texts."""

    name: str
    value: str
    default: str
    changed: bool
    """Whether the value differs from the default, or the manifest sets a value whose default is derived."""


class GivenAdvice(NamedTuple):
    """A recommendation for a run, in the report about the run.

    - ``rule``: the id of the rule that gives the recommendation.
    - ``parameter``: the field that the recommendation is about, or empty.
    - ``message``: the recommendation, with numbers that were measured in the run.
    - ``when``: the condition of the rule, in words. Empty if this release does not know the rule.
    - ``why``: the text of the rule in the tuning guide. Empty if this release does not know the rule.
    """

    rule: str
    parameter: str
    message: str
    when: str
    why: str


class PhaseTime(NamedTuple):
    """The time that all steps of a run together spent in one phase of a step, such as sampling or grading."""

    name: str
    seconds: float
    share: float
    """``seconds`` divided by the sum of the seconds of all phases, with the phase ``other``: from 0 to 1."""


class Used(NamedTuple):
    """An amount such as steps or GPU-hours, as it was planned for a run, and as the run has used it so far.

    - ``name``: the name of the amount.
    - ``planned``: the planned amount, as a text.
    - ``used``: the used amount, as a text.
    """

    name: str
    planned: str
    used: str


class HeldOutAnswer(NamedTuple):
    """The completions of the base policy and of the tuned policy for one held-out row, with their rewards.

    ``line`` is the line number of the row in the dataset.
    """

    line: int
    base: str
    tuned: str
    base_reward: float
    tuned_reward: float


def scores(result: EvaluationResult) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table of a held-out evaluation: one for the reward, and one for each grader.

    The cells of a row are the name, the mean of the base policy, the mean of the tuned policy, the difference
    of the means, and the 95 % interval of the difference.
    """
    named: dict[str, GraderEvaluation] = {} if result.reward is None else {"reward": result.reward}
    for name, found in (*named.items(), *(result.graders or {}).items()):
        yield cells(name, found)


def parameters(run: ReportedRun) -> list[Parameter]:
    """Return the parameters of a run: all parameters of training and sampling, and its graders.

    Parameters with default values are included.
    """
    spec, plan = run.spec.dump(), run.status.plan
    effective = plan.effective.dump() if plan is not None and plan.effective is not None else {}
    known = {name: value for name, value in effective.items() if name != "inherited"}
    rows = [
        _parameter(f"training.{name}", value, spec["training"].get(name))
        for name, value in {**spec["training"], **known}.items()
    ]
    rows += [_parameter(f"sampling.{name}", value, value) for name, value in spec["sampling"].items()]
    rows += [
        Parameter(f"graders.{grader.name}", f"{grader.kind}, weight {grader.weight:g}", "", False)
        for grader in run.spec.graders
    ]
    return rows


def _parameter(name: str, value: Any, given: Any) -> Parameter:
    try:
        default = find(name).default
    except UnknownField:
        default = None
    if default is None:
        return Parameter(name, as_text(value), DERIVED, given is not None)
    return Parameter(name, as_text(value), as_text(default), value != default)


def as_text(value: Any) -> str:
    """Return a value from a manifest as text for a table: items of a list with commas, an object as JSON."""
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return ", ".join(map(str, value)) or NONE
    return str(value).lower() if isinstance(value, bool) else str(value)


def advice(run: ReportedRun) -> list[GivenAdvice]:
    """Return the recommendations in the status of a run, which follow from metrics that the run measured.

    Each one has the condition and the text of its rule, if this release knows the rule.
    """
    rules = {rule.id: rule for rule in RUN_RULES}
    return [
        GivenAdvice(
            found.rule,
            found.parameter or "",
            found.message,
            rules[found.rule].when if found.rule in rules else "",
            rules[found.rule].advice if found.rule in rules else "",
        )
        for found in run.status.recommendations or []
    ]


PHASES = {"rollout": "sampling", "grade": "grading", "update": "update", "publish": "new adapter version"}
"""The names of a step's phases in a report, by their names in ``metrics.jsonl``."""


def phases(run: ReportedRun) -> list[PhaseTime]:
    """Return the time that all steps of a run together spent in each phase, such as sampling and grading.

    The phase ``other`` is the time of the steps in which no phase was measured. Return an empty list if no
    step has a time.
    """
    total = sum(step.step_seconds or 0.0 for step in run.steps)
    if not total:
        return []
    spent = {
        shown: sum(step.phases.get(name, 0.0) for step in run.steps if step.step_seconds)
        for name, shown in PHASES.items()
    }
    spent["other"] = max(0.0, total - sum(spent.values()))
    whole = sum(spent.values())  # more than ``total`` if phases overlap
    return [PhaseTime(name, seconds, seconds / whole) for name, seconds in spent.items()]


def plan_and_use(run: ReportedRun) -> list[Used]:
    """Return amounts of a run, such as steps and GPU-hours, each as planned and as used so far.

    An amount is left out if its planned or its used value is not known.
    """
    plan, usage, progress = run.status.plan, run.status.usage, run.status.progress
    estimate = plan.estimate if plan is not None else None
    if estimate is None:
        return []
    timed = [step.step_seconds for step in run.steps if step.step_seconds]
    rows = [
        ("steps", _count(estimate.steps), _count(progress.step if progress else None)),
        (
            "time of a step",
            _seconds(estimate.seconds_per_step),
            _seconds(sum(timed) / len(timed) if timed else None),
        ),
    ]
    if usage is not None:
        rows += [
            ("prompt tokens", _count(estimate.prompt_tokens), _count(usage.prompt_tokens)),
            ("completion tokens", _count(estimate.completion_tokens), _count(usage.completion_tokens)),
            ("GPU-hours", _decimal(estimate.gpu_hours), _decimal(usage.gpu_seconds / 3600)),
            ("cost", _decimal(estimate.cost), _decimal(usage.cost)),
        ]
    return [Used(*row) for row in rows if NONE not in row]


def plan_lines(run: ReportedRun) -> Iterator[str]:
    """Yield lines of text about the plan of a run: its GPUs, CPU and memory, and the notes of the plan.

    Yield nothing if the run has no plan yet.
    """
    plan = run.status.plan
    if plan is None:
        return
    kind = f" of {plan.accelerator}" if plan.accelerator else ""
    yield f"{plan.gpus} GPUs{kind}, device {plan.device}"
    for name, amount in (("CPU", plan.cpu), ("memory", plan.memory)):
        if amount is not None:
            yield f"{name}: {amount}"
    yield from plan.notes or []


def usage_lines(run: ReportedRun) -> Iterator[str]:
    """Yield lines of text about what a run has used so far. Yield nothing if this is not known.

    The lines are about GPU-hours, tokens and cost, dropped prompts and groups, errors of graders, forged
    replies of graders, and the last step: its time, turns and tool calls.
    """
    usage = run.status.usage
    if usage is None:
        return
    if usage.gpu_seconds:
        yield f"GPUs: {usage.gpu_seconds / 3600:.2f} hours"
    yield f"trained tokens: {usage.prompt_tokens} of prompts, {usage.completion_tokens} of completions"
    if usage.cost is not None:
        yield f"cost: {usage.cost:.2f}"
    if usage.dropped_prompts or usage.dropped_groups:
        yield (
            f"dropped: {usage.dropped_prompts} prompts that were too long, {usage.dropped_groups} groups that"
            " were not graded"
        )
    for name, count in (usage.grader_errors or {}).items():
        yield f"errors of {name}: {count}"
    for name, count in (usage.forged_replies or {}).items():
        yield f"replies that another program forged in place of {name}, and that were refused: {count}"
    metrics = run.status.metrics
    if metrics is not None and metrics.step_seconds is not None:
        yield f"last step: {duration(metrics.step_seconds)}"
    if metrics is not None and metrics.turns is not None:
        waited = metrics.environment_fraction or 0.0
        yield (
            f"a rollout: {metrics.turns:.1f} turns, {metrics.tool_calls or 0:.1f} tool calls, {waited:.0%} of"
            f" its time waiting for the environment; {metrics.tool_errors or 0} tool calls of the step failed"
        )


def answers(base: EvaluationRecord | None, tuned: EvaluationRecord | None) -> list[HeldOutAnswer]:
    """Return the held-out rows whose reward changed most, with the completions of base and tuned policy.

    First come at most three rows whose reward rose, the largest rise first. Then come at most three rows
    whose reward fell, the largest fall first. The list is empty in these cases:

    - No reward changed.
    - An evaluation is missing.
    - The two evaluations were on different rows.
    - The evaluations have no completions.
    """
    if base is None or tuned is None or base.lines != tuned.lines:
        return []
    answered = zip(base.lines, base.completions, tuned.completions, base.reward, tuned.reward, strict=False)
    rows = [
        HeldOutAnswer(line, first, last, before, after)
        for line, first, last, before, after in answered
        if before is not None and after is not None
    ]
    by_change = sorted(rows, key=lambda row: row.tuned_reward - row.base_reward, reverse=True)
    better = [row for row in by_change if row.tuned_reward > row.base_reward]
    worse = [row for row in by_change if row.tuned_reward < row.base_reward]
    return [*better[:CHANGED_ROWS], *worse[::-1][:CHANGED_ROWS]]


def _count(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


def _decimal(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _seconds(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f} s"
