"""Makes the HTML pages about a run and about a comparison of runs, for ``rft report``, ``rft ui`` and
``rft compare``.

A page is one file without scripts. It needs no network.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rft_cli.local.reported import ReportedRun
from rft_cli.render import sections
from rft_cli.render.curve import points_of_steps
from rft_cli.render.evaluation import verdict
from rft_cli.render.plot import Point
from rft_cli.render.rollouts import turn
from rft_cli.render.smoothing import centred_mean, smoothed, thinned, window_of
from rft_cli.render.svg import Band, Chart, Series, chart
from rft_cli.render.views import duration, number, steps
from rft_run.cluster_text import cluster_text
from rft_run.rollouts import RolloutRecord
from rft_run.steps import StepRecord

if TYPE_CHECKING:
    from rft_cli.render.comparison import Comparison

SHOWN = 4000
"""Maximum number of characters of a prompt, a completion or another text on a page. Longer ones are cut."""
ROLLOUTS = 2
"""Number of rollouts that are shown for each prompt: those with the highest and with the lowest reward."""


class Measurement(NamedTuple):
    """A metric of a run's steps, for which the page has a small chart.

    - ``title``: the title of the chart, with the unit.
    - ``value``: a function that returns the value of the metric in the record of a step.
    """

    title: str
    value: Callable[[StepRecord], float | None]


MEASURES = (
    Measurement("Entropy, nats per token", lambda step: step.entropy),
    Measurement("KL to the reference, nats per token", lambda step: step.kl),
    Measurement("Length of completions, tokens", lambda step: step.completion_tokens),
    Measurement("Completions cut at maxTokens, fraction", lambda step: step.truncated_fraction),
    Measurement("Groups with equal rewards, fraction", lambda step: step.zero_variance_fraction),
    Measurement("Turns of a rollout", lambda step: step.turns),
    Measurement("Tool calls that failed", lambda step: step.tool_errors),
    Measurement(
        "Waiting for environments, fraction of rollouts' time", lambda step: step.environment_fraction
    ),
    Measurement("Norm of the gradient", lambda step: step.grad_norm),
    Measurement("KL of trainer and sampler, nats per token", lambda step: step.mismatch_kl),
    Measurement("Time of a step, seconds", lambda step: step.step_seconds),
)


class ShownTurn(NamedTuple):
    """A message of a prompt on the page, with its role, such as user or system."""

    role: str
    text: str


class Answered(NamedTuple):
    """A rollout on the page. All numbers are formatted as texts.

    - ``reward``: its reward, or a dash if it was not graded.
    - ``graders``: pairs of a grader's name and its score.
    - ``about``: a line with the advantage, the finish reason and the number of tokens.
    - ``text``: the completion, or the messages of all turns in a job with an environment.
    - ``errors``: pairs of a grader's name and its error.
    """

    reward: str
    graders: Sequence[tuple[str, str]]
    about: str
    text: str
    errors: Sequence[tuple[str, str]]


class ShownPrompt(NamedTuple):
    """A prompt of a step on the page, with the rollouts that are shown for it.

    - ``line``: the line number of the prompt's row in the dataset.
    - ``rollouts``: the number of all rollouts of the prompt in the step.
    - ``turns``: the messages of the prompt.
    - ``answers``: the rollouts with the highest and with the lowest reward.
    """

    line: int
    rollouts: int
    turns: Sequence[ShownTurn]
    answers: Sequence[Answered]


def as_html(run: ReportedRun, *, refresh: int | None = None) -> str:
    """Return the HTML page about a run: charts, evaluation, parameters, plan and rollouts.

    A section without data is left out. All texts of the run are escaped. Secrets and control characters in
    them are replaced. ``refresh`` is the number of seconds after which a browser loads the page again, or
    None if it should not.
    """
    template = environment().get_template("report.html.j2")
    return template.render(
        run=run,
        refresh=refresh,
        made=_made(run),
        verdict=verdict(run.status.evaluation) if run.status.evaluation is not None else "",
        scores=list(sections.scores(run.status.evaluation)) if run.status.evaluation is not None else [],
        reward=reward_chart(run),
        graders=graders_chart(run),
        measures=list(_measures(run)),
        advice=sections.advice(run),
        phases=sections.phases(run),
        parameters=sections.parameters(run),
        plan=list(sections.plan_lines(run)),
        plan_and_use=sections.plan_and_use(run),
        usage=list(sections.usage_lines(run)),
        answers=sections.answers(run.base, run.tuned),
        sampled=[(each.step, [_asked(group) for group in each.groups]) for each in run.sampled],
    )


def comparison_as_html(found: "Comparison") -> str:
    """Return the HTML page with a comparison of several runs: its tables and its chart."""
    return environment().get_template("compare.html.j2").render(found=found)


@cache
def environment() -> Environment:
    """Return the Jinja environment with the templates of all pages. It is created in the first call.

    In each value that a template prints, secrets and control characters are replaced, long texts are cut, and
    characters that are special in HTML are escaped.
    """
    made = Environment(
        loader=PackageLoader("rft_cli.render"),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": number, "duration": duration}
    return made


def shown(value: Any) -> Any:
    """Return a value in the form in which a page shows it. Only texts are changed, but not ``Markup``.

    Secrets and control characters in a text are replaced. A text of more than 4000 characters is
    truncated, and the number of characters that are left out follows it.
    """
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    text = cluster_text(value)
    left = len(text) - SHOWN
    return f"{cluster_text(value, SHOWN)} ({left:,} more characters)" if left > 0 else text


def reward_chart(run: ReportedRun) -> Chart | None:
    """Return the chart of a run's reward by step, or None if no step has a reward. The chart has:

    - the reward of each step;
    - the centred mean, with the lowest and the highest reward in its window;
    - the rewards of all held-out evaluations, and lines at the rewards of the base and the tuned policy.
    """
    points = points_of_steps(run.steps)
    means = smoothed(points)
    base, tuned = _held_out(run)
    series = [
        Series("each step", thinned(points), "faint"),
        Series(f"centred mean of {window_of(len(points))} steps", [(p.x, p.mean) for p in means]),
        Series("base, held-out rows", _level(points, base), "level", 1),
        Series("tuned, held-out rows", _level(points, tuned), "level", 2),
    ]
    evaluated = [(float(found.step), found.reward) for found in run.held_out if found.reward is not None]
    series.append(Series("held-out evaluations", evaluated, "dots", 2))
    band = Band("lowest to highest", [(p.x, p.low) for p in means], [(p.x, p.high) for p in means])
    return chart("Mean reward of a step's rollouts, by step", series, [band] if len(means) > 1 else [])


def _held_out(run: ReportedRun) -> tuple[float | None, float | None]:
    found = run.status.evaluation.reward if run.status.evaluation is not None else None
    return (None, None) if found is None else (found.base, found.tuned)


def _level(points: Sequence[Point], value: float | None) -> list[Point]:
    """Return the two end points of a horizontal line at the height ``value``, for a chart with another curve.

    The line goes from the first to the last x of ``points``, the points of the curve. Return [] if ``value``
    is None or the curve is empty.
    """
    return [] if value is None or not points else [(points[0][0], value), (points[-1][0], value)]


def graders_chart(run: ReportedRun) -> Chart | None:
    """Return a chart with a line for each grader: its mean score by step, smoothed by a centred mean.

    Return None if no step has a score.
    """
    names = dict.fromkeys(name for step in run.steps for name in step.graders)
    series = [
        Series(
            name,
            centred_mean(
                [(float(step.step), step.graders[name]) for step in run.steps if name in step.graders]
            ),
            colour=index,
        )
        for index, name in enumerate(names)
    ]
    return chart("Mean score of each grader, by step, smoothed by a centred mean", series)


def _measures(run: ReportedRun) -> Iterator[Chart]:
    for measure in MEASURES:
        found = ((step.step, measure.value(step)) for step in run.steps)
        points = [(float(step), value) for step, value in found if value is not None]
        lines = [Series("each step", thinned(points), "faint"), Series("centred mean", centred_mean(points))]
        if (drawn := chart(measure.title, lines)) is not None:
            yield drawn


def _made(run: ReportedRun) -> str:
    progress = run.status.progress
    if progress is None:
        return ""
    made = steps(progress.step, progress.total_steps, progress.total_steps_estimated)
    return f"step {made}, attempt {progress.attempt}"


def _asked(group: Sequence[RolloutRecord]) -> ShownPrompt:
    by_reward = sorted(group, key=lambda each: -1.0 if each.reward is None else each.reward, reverse=True)
    chosen = by_reward if len(by_reward) <= ROLLOUTS else [by_reward[0], by_reward[-1]]
    turns = [ShownTurn(str(message.get("role", "")), _content(message)) for message in group[0].messages]
    return ShownPrompt(group[0].line, len(group), turns, [_answered(record) for record in chosen])


def _content(message: dict[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else sections.as_text(content)


def _answered(record: RolloutRecord) -> Answered:
    advantage = "" if record.advantage is None else f"advantage {record.advantage:+.3f}, "
    return Answered(
        number(record.reward),
        [(name, number(score)) for name, score in record.graders.items()],
        f"{advantage}{record.finish_reason or 'ended'} after {record.tokens} tokens",
        record.completion
        if record.turns is None
        else "\n".join(line for message in record.turns for line in turn(message)),
        list(record.errors.items()),
    )
