"""Evaluates policies on the held-out rows, and compares the starting policy with the tuned policies."""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import zip_longest

from rft_api.base import known
from rft_api.job import RFTJobSpec
from rft_api.status import BestEvaluation, EvaluationResult, GraderEvaluation
from rft_graders.scorer import Scorer
from rft_run.bootstrap import paired_bootstrap
from rft_run.errors import InputsChanged
from rft_run.evaluation import UnreadableEvaluation, read_evaluation
from rft_run.folder import RunFolder
from rft_run.state import RunState
from rft_trainer import files
from rft_trainer.data import Prompt, Row
from rft_trainer.rollout.engine import Generated, Request, SamplingParameters
from rft_trainer.rollout.groups import Rollout, grade_items, rollout_requests, rollouts_by_prompt

log = logging.getLogger(__name__)

Generate = Callable[[Sequence[Prompt], Sequence[Request], Callable[[], bool]], list[Generated]]
"""The type of a function that returns a completion for each request, in order.

Its arguments are the prompts, the requests (those of one prompt follow each other), and ``should_stop``.
"""


@dataclass(frozen=True)
class RowScores:
    """The rewards and grader scores of one policy on the held-out rows.

    Each value of a row is the mean over its samples, or None if no sample was graded.

    - ``step``: the step after which the policy was evaluated. 0 for the starting policy.
    - ``lines``: the line number of each row in its file.
    - ``reward``: the reward of each row.
    - ``graders``: for each grader's name, the score of each row.
    - ``completions``: the text of each row's first sample.
    - ``truncated``: share of all samples that ``maxTokens`` or another limit cut.
    """

    step: int
    lines: list[int]
    reward: list[float | None]
    graders: dict[str, list[float | None]]
    completions: list[str]
    truncated: float | None
    rows: list[str] = field(default_factory=list)
    """The digest of each row's content. Empty in a file that an older release wrote."""

    @property
    def mean_reward(self) -> float:
        """Mean reward over the rows that have a reward. It is 0 if no row has one."""
        return _mean(self.reward) or 0.0

    def save(self, folder: RunFolder) -> None:
        """Write the scores into the run's folder, as the evaluation after ``step``. Raises VolumeError."""
        files.write_json(folder.evaluation_of(self.step), asdict(self))

    @classmethod
    def read(cls, folder: RunFolder, step: int) -> "RowScores | None":
        """Read the scores of the policy after ``step``. None: no scores are saved, or their file is invalid.

        An invalid file is logged. Raises OSError if the volume fails.
        """
        if not folder.evaluation_of(step).exists():
            return None
        try:
            record = read_evaluation(folder, step)
        except UnreadableEvaluation as error:
            log.warning("an evaluation cannot be read and is ignored: %s", error)
            return None
        found = record.model_dump(by_alias=False)
        return cls(**{entry.name: found[entry.name] for entry in fields(cls)})


def evaluate(
    prompts: Sequence[Prompt],
    spec: RFTJobSpec,
    sampling: SamplingParameters,
    seed: int,
    step: int,
    generate: Generate,
    scorer: Scorer,
    should_stop: Callable[[], bool],
) -> RowScores:
    """Evaluate the sampler's current adapter on the held-out prompts: sample completions and grade them.

    ``step``: the step after which the policy is evaluated. 0 for the starting policy.
    """
    by_row = heldout_rollouts(prompts, spec, sampling, seed, generate, scorer, should_stop)
    return row_scores(prompts, by_row, spec, step)


def heldout_rollouts(
    prompts: Sequence[Prompt],
    spec: RFTJobSpec,
    sampling: SamplingParameters,
    seed: int,
    generate: Generate,
    scorer: Scorer,
    should_stop: Callable[[], bool],
) -> list[tuple[Rollout, ...]]:
    """Sample and grade completions of the held-out prompts. Return the rollouts of each prompt, in order.

    The sampler's current adapter is used. ``sampling``: the sampling parameters of training. Their
    temperature is replaced by ``spec.evaluation.temperature``. If this is 0, each prompt gets one sample, and
    top-k and top-p are off.
    """
    evaluation = spec.evaluation
    samples = evaluation.samples if evaluation.temperature > 0 else 1
    parameters = sampling.at(evaluation.temperature)
    # The seeds do not depend on the step, so differences between evaluations come from the policies alone.
    requests = rollout_requests(prompts, samples, parameters, seed, "held-out")
    completions = generate(prompts, requests, should_stop)
    scores = scorer.score(grade_items(prompts, completions), should_stop)
    return rollouts_by_prompt(prompts, completions, scores)


def row_scores(
    prompts: Sequence[Prompt], by_row: Sequence[tuple[Rollout, ...]], spec: RFTJobSpec, step: int
) -> RowScores:
    """Return the scores of a policy, computed from its graded rollouts.

    - ``by_row``: the rollouts of each prompt. Each prompt has at least one rollout.
    - ``step``: the step after which the policy was evaluated. 0 for the starting policy.
    """
    return RowScores(
        step=step,
        lines=[prompt.row.line for prompt in prompts],
        reward=[_mean([r.score.reward for r in row]) for row in by_row],
        graders={
            grader.name: [_mean([r.score.per_grader.get(grader.name) for r in row]) for row in by_row]
            for grader in spec.scored_by
        },
        completions=[row[0].generated.text for row in by_row],
        truncated=_share_truncated([rollout for row in by_row for rollout in row]),
        rows=[row_digest(prompt.row) for prompt in prompts],
    )


def compare(
    base: RowScores,
    tuned: RowScores | None,
    seed: int,
    best: RowScores | None = None,
    selected: bool = False,
) -> EvaluationResult:
    """Compare policies on the held-out rows: means, paired differences and their confidence intervals.

    - ``base``: the scores of the starting policy.
    - ``tuned``: the scores of the tuned policy. None: the result has no comparison with it.
    - ``seed``: seed of the random resampling, from which the intervals are computed.
    - ``best``: the scores of the best policy. None: the result has no comparison with it.
    - ``selected``: whether ``best`` was chosen from several policies. Then its difference is biased upwards.

    Raises InputsChanged if the policies were evaluated on different rows.
    """
    for other in filter(None, (tuned, best)):
        refuse_other_rows(base, other)
    chosen = None
    if best is not None:
        chosen = BestEvaluation(step=best.step, reward=_side_by_side(base.reward, best.reward, seed))
    return EvaluationResult(
        rows=len(base.lines),
        step=tuned.step if tuned else 0,
        reward=_side_by_side(base.reward, tuned.reward if tuned else None, seed),
        graders={
            name: _side_by_side(scores, tuned.graders.get(name) if tuned else None, seed)
            for name, scores in base.graders.items()
            if any(score is not None for score in scores)  # a canary that always failed has no mean
        },
        **known(best=chosen),
        selected=selected,
    )


def refuse_other_rows(base: RowScores, other: RowScores) -> None:
    """Raise InputsChanged if two evaluations used different held-out rows, so they cannot be compared."""
    if base.lines == other.lines and (not base.rows or not other.rows or base.rows == other.rows):
        return
    pairs = enumerate(zip_longest(zip_longest(base.lines, base.rows), zip_longest(other.lines, other.rows)))
    first = next((number for number, (old, new) in pairs if old != new), 0)
    before, after = (scores.lines[first : first + 1] for scores in (base, other))
    raise InputsChanged(
        f"the evaluations after step {base.step} and step {other.step} used different held-out rows, so they"
        f" cannot be compared row by row: {len(base.lines)} and {len(other.lines)} rows; the first difference"
        f" is at row number {first + 1} (line {_line(before)} and line {_line(after)} of the file). Put the"
        " rows back as they were, or start a new run"
    )


def refuse_other_prompts(base: RowScores, prompts: Sequence[Prompt]) -> None:
    """Raise InputsChanged if the rows of ``prompts`` are not the rows of the saved evaluation ``base``."""
    lines = [prompt.row.line for prompt in prompts]
    refuse_other_rows(base, replace(base, lines=lines, rows=[row_digest(p.row) for p in prompts]))


def _line(found: Sequence[int]) -> str:
    return str(found[0]) if found else "none"


def row_digest(row: Row) -> str:
    """Return a digest of a row's content: 16 hex digits, which do not depend on the JSON's formatting."""
    content = json.dumps([row.messages, row.fields], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def is_best(state: RunState, reward: float) -> bool:
    """Return whether a held-out reward is higher than that of every earlier trained policy of the run.

    Return False for the policy before the first step.
    """
    return state.step > 0 and (state.best_reward is None or reward > state.best_reward)


def comparison(
    folder: RunFolder, state: RunState, base: RowScores, tuned: RowScores | None, seed: int
) -> EvaluationResult:
    """Compare the starting policy ``base`` with the tuned policy and with the best policy of the run.

    - ``tuned``: the scores of the tuned policy. None: the result has no comparison with a tuned policy.
    - ``state.best_step``: the step of the best policy, whose scores are read from ``folder``. 0: the result
      has no comparison with a best policy.
    - ``seed``: seed of the random resampling, from which the confidence intervals are computed.
    """
    best = RowScores.read(folder, state.best_step) if state.best_step else None
    tuned_policies = [step for step in folder.evaluated_steps() if step > 0]
    return compare(base, tuned, seed, best, selected=len(tuned_policies) > 1)


def _side_by_side(
    base: Sequence[float | None], tuned: Sequence[float | None] | None, seed: int
) -> GraderEvaluation:
    if tuned is None:
        return GraderEvaluation(base=_mean(base) or 0.0)
    pairs = [(b, t) for b, t in zip(base, tuned, strict=True) if b is not None and t is not None]
    if not pairs:
        return GraderEvaluation(base=_mean(base) or 0.0)
    before, after = zip(*pairs, strict=True)
    return GraderEvaluation(
        base=math.fsum(before) / len(before),
        tuned=math.fsum(after) / len(after),
        difference=paired_bootstrap(before, after, seed),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _share_truncated(rollouts: Sequence[Rollout]) -> float:
    return sum(rollout.generated.truncated for rollout in rollouts) / max(1, len(rollouts))
