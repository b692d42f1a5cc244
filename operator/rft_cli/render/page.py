"""Makes a page of Markdown about a run, for ``rft report``."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rft_api.job import RFTJobSpec
from rft_api.status import EvaluationResult, GraderEvaluation, RFTJobStatus
from rft_cli.render.evaluation import verdict
from rft_cli.render.plot import Point, line_chart
from rft_cli.render.views import NONE, duration, number, steps
from rft_run.cluster_text import cluster_text
from rft_run.markdown import code, escaped

CHART_WIDTH, CHART_HEIGHT = 64, 10


class ReportedRun(NamedTuple):
    """The data for the page of a run."""

    name: str
    spec: RFTJobSpec
    status: RFTJobStatus
    points: Sequence[Point]
    """The reward curve: all steps from the folder of a run, or the points in the status of a job."""


def as_markdown(run: ReportedRun) -> str:
    """Return the page as Markdown. Sections whose data do not exist yet are left out."""
    parts = [
        _heading(run),
        _evaluation(run),
        _curve(run),
        _advice(run),
        _parameters(run),
        _plan(run),
        _usage(run),
    ]
    return "\n\n".join("\n".join(lines) for part in parts if (lines := list(part)))


def _heading(run: ReportedRun) -> Iterator[str]:
    status, progress = run.status, run.status.progress
    yield f"# {_text(run.name)}"
    yield ""
    message = f" ({_text(status.message)})" if status.message else ""
    yield f"- phase: {status.phase or 'Pending'}{message}"
    yield f"- model: {_text(run.spec.model.name)}"
    if progress is not None:
        made = steps(progress.step, progress.total_steps, progress.total_steps_estimated)
        yield f"- steps: {made}, attempt {progress.attempt}"
    if status.output is not None and status.output.adapter:
        yield f"- adapter: {_path(status.output.adapter)}"
    if status.output is not None and status.output.folder:
        yield f"- folder: {_path(status.output.folder)}"


def _evaluation(run: ReportedRun) -> Iterator[str]:
    result = run.status.evaluation
    if result is None:
        return
    yield "## Held-out evaluation"
    yield ""
    yield _said_of(result)
    yield ""
    yield from _table(
        ("score", "base", "tuned", "difference", "95 % interval"),
        [_scores(name, scores) for name, scores in _by_name(result)],
    )


def _said_of(result: EvaluationResult) -> str:
    return f"{result.rows} rows. {verdict(result)}"


def _by_name(result: EvaluationResult) -> Iterator[tuple[str, GraderEvaluation]]:
    if result.reward is not None:
        yield "reward", result.reward
    yield from (result.graders or {}).items()


def _scores(name: str, scores: GraderEvaluation) -> tuple[str, ...]:
    found = scores.difference
    between = NONE if found is None else f"{found.low:+.3f} to {found.high:+.3f}"
    return (
        name,
        number(scores.base),
        number(scores.tuned),
        NONE if found is None else f"{found.mean:+.3f}",
        between,
    )


def _curve(run: ReportedRun) -> Iterator[str]:
    if not run.points:
        return
    yield "## Reward"
    yield ""
    yield "```"
    yield line_chart(run.points, width=CHART_WIDTH, height=CHART_HEIGHT)
    yield "```"


def _advice(run: ReportedRun) -> Iterator[str]:
    if not run.status.recommendations:
        return
    yield "## Advice"
    yield ""
    for advice in run.status.recommendations:
        about = f"{_path(advice.parameter)}: " if advice.parameter else ""
        yield f"- {about}{_text(advice.message)} ({_text(advice.rule)})"


def _parameters(run: ReportedRun) -> Iterator[str]:
    """Return all parameters that the run used, also those that have their default values."""
    spec = run.spec.dump()
    plan = run.status.plan
    effective = plan.effective.dump() if plan is not None and plan.effective is not None else {}
    values = {**spec["training"], **{name: value for name, value in effective.items() if value is not None}}
    rows = [(f"training.{name}", _shown(value)) for name, value in values.items()]
    rows += [(f"sampling.{name}", _shown(value)) for name, value in spec["sampling"].items()]
    rows += [
        (f"graders.{grader.name}", f"{grader.kind}, weight {grader.weight:g}") for grader in run.spec.graders
    ]
    yield "## Parameters"
    yield ""
    yield from _table(("parameter", "value"), rows)


def _plan(run: ReportedRun) -> Iterator[str]:
    plan = run.status.plan
    if plan is None:
        return
    yield "## Plan"
    yield ""
    kind = f" of {_text(plan.accelerator)}" if plan.accelerator else ""
    yield f"- {plan.gpus} GPUs{kind}, device {plan.device}"
    for name, amount in (("CPU", plan.cpu), ("memory", plan.memory)):
        if amount is not None:
            yield f"- {name}: {_text(amount)}"
    for note in plan.notes or []:
        yield f"- {_text(note)}"


def _usage(run: ReportedRun) -> Iterator[str]:
    usage = run.status.usage
    if usage is None:
        return
    yield "## Used"
    yield ""
    if usage.gpu_seconds:
        yield f"- GPUs: {usage.gpu_seconds / 3600:.2f} hours"
    yield f"- trained tokens: {usage.prompt_tokens} of prompts, {usage.completion_tokens} of completions"
    if usage.cost is not None:
        yield f"- cost: {usage.cost:.2f}"
    if usage.dropped_prompts or usage.dropped_groups:
        yield f"- dropped: {usage.dropped_prompts} prompts too long, {usage.dropped_groups} groups not graded"
    for name, count in (usage.grader_errors or {}).items():
        yield f"- errors of {_text(name)}: {count}"
    for name, count in (usage.forged_replies or {}).items():
        yield f"- forged replies of {_text(name)}, refused: {count}"
    metrics = run.status.metrics
    if metrics is not None and metrics.step_seconds is not None:
        yield f"- last step: {duration(metrics.step_seconds)}"


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (heading, ["---"] * len(heading), *(map(_text, row) for row in rows)):
        yield "| " + " | ".join(cells) + " |"


def _text(text: str) -> str:
    """Return a text for the page, which people pass on: with neither secrets nor marks of Markdown."""
    return escaped(cluster_text(text))


def _path(text: str) -> str:
    return code(cluster_text(text))


def _shown(value: Any) -> str:
    if isinstance(value, Mapping | list):
        return ", ".join(map(str, value)) or NONE
    return str(value).lower() if isinstance(value, bool) else str(value)
