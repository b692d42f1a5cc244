"""Formats the result of a held-out evaluation: a table of scores, and a sentence about their difference."""

from rich.table import Table

from rft_api.status import EvaluationResult, GraderEvaluation
from rft_cli.render.views import NONE, number


def evaluation_table(result: EvaluationResult) -> Table:
    """Return a table of the held-out scores, with a line for the reward and a line for each grader.

    Each line has the mean score of the base policy and of the tuned policy, and their difference with its
    95 % interval. A last line has the reward of the best checkpoint, unless this is the tuned policy itself.
    """
    title = f"Held-out evaluation: {result.rows} rows"
    if result.step:
        title += f", tuned at step {result.step}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("score")
    for heading in ("base", "tuned", "difference", "95 % interval"):
        table.add_column(heading, justify="right")
    if result.reward is not None:
        table.add_row(*cells("reward", result.reward))
    for name, scores in (result.graders or {}).items():
        table.add_row(*cells(f"  {name}", scores))
    if result.best is not None and result.best.step != result.step:
        table.add_row(*cells(f"best reward, at step {result.best.step}", result.best.reward))
    return table


def verdict(result: EvaluationResult) -> str:
    """Return a sentence that compares the held-out reward of the tuned policy with that of the base policy.

    It says that the reward is higher, that it is lower, that there is no clear difference, or that the
    policies were not compared. A second sentence follows if the same rows were used to choose the best
    checkpoint.
    """
    difference = result.reward.difference if result.reward is not None else None
    if difference is None:
        return "The base and the tuned policy were not compared."
    sentence = "The interval includes 0: these rows show no clear difference between tuned and base."
    if difference.low > 0:
        sentence = "The tuned policy scores higher than the base on rows it was not trained on."
    elif difference.high < 0:
        sentence = "The tuned policy scores lower than the base."
    if result.selected:
        sentence += (
            " The best checkpoint was chosen by its reward on these rows, so this reward is too optimistic."
        )
    return sentence


def cells(name: str, scores: GraderEvaluation) -> tuple[str, ...]:
    """Return the cells of a table row for one score, the reward or that of a grader.

    The cells are name, base policy, tuned policy, difference, and 95 % interval of the difference. A dash
    stands for an unknown value.
    """
    difference = scores.difference
    return (
        name,
        number(scores.base),
        number(scores.tuned),
        NONE if difference is None else f"{difference.mean:+.3f}",
        NONE if difference is None else f"{difference.low:+.3f} to {difference.high:+.3f}",
    )
