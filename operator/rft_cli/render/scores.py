"""Formats the scores of a policy in ``rft evaluate``: a table, and a line about truncated completions."""

from rich.table import Table

from rft_cli.local.scoring import PolicyScores
from rft_cli.render.views import NONE, number
from rft_run.bootstrap import MeanScore


def scores_table(scores: PolicyScores) -> Table:
    """Return a table of the scores of one policy, with a line for the reward and a line for each grader.

    Each line has the mean score and its 95 % interval. The line of a grader also has the number of
    completions for which the grader failed.
    """
    table = Table(title=_title(scores), title_justify="left", box=None, pad_edge=False)
    table.add_column("score")
    for heading in ("mean", "95 % interval", "errors"):
        table.add_column(heading, justify="right")
    table.add_row("reward", *_cells(scores.reward), NONE)
    for name, mean in scores.graders.items():
        table.add_row(f"  {name}", *_cells(mean), str(scores.errors.get(name, 0)))
    return table


def truncated_line(scores: PolicyScores) -> str:
    """Return a line of text: which share of a policy's completions was truncated at ``maxTokens``."""
    share = "not known" if scores.truncated is None else f"{scores.truncated:.1%} of the completions"
    return f"truncated at maxTokens: {share}"


def _title(scores: PolicyScores) -> str:
    policy = f"Tuned policy, step {scores.step}" if scores.step else "Starting policy"
    each = scores.completions // max(1, scores.rows)
    return f"{policy}: {scores.rows} rows, {each} completion{'s' if each != 1 else ''} of each"


def _cells(mean: MeanScore | None) -> tuple[str, str]:
    if mean is None:
        return NONE, NONE
    return number(mean.mean), f"{number(mean.low)} to {number(mean.high)}"
