"""Held-out evaluation, on the same rows for the base model and for every tuned policy."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from rft_api.base import known
from rft_api.job import RFTJobSpec
from rft_api.status import BestEvaluation, EvaluationResult, GraderEvaluation
from rft_graders.scorer import Scorer
from rft_run.folder import RunFolder
from rft_run.state import RunState
from rft_trainer import files
from rft_trainer.bootstrap import paired_bootstrap
from rft_trainer.data import Prompt
from rft_trainer.rollout.engine import RolloutEngine, SamplingParameters
from rft_trainer.rollout.groups import Rollout, grade_items, rollout_requests, rollouts_by_prompt

REWARD = "reward"
"""Key of the total reward in a mapping whose other keys are graders' names."""


@dataclass(frozen=True)
class RowScores:
    """Scores of one policy for each row, averaged over the row's samples. None: no sample was graded."""

    step: int
    lines: list[int]
    reward: list[float | None]
    graders: dict[str, list[float | None]]
    completions: list[str]
    truncated: float

    @property
    def mean_reward(self) -> float:
        """Mean reward over the graded rows."""
        return _mean(self.reward) or 0.0

    def save(self, folder: RunFolder) -> None:
        """Write the file of the step. Raises VolumeError."""
        files.write_json(folder.evaluation_of(self.step), asdict(self))

    @classmethod
    def read(cls, folder: RunFolder, step: int) -> "RowScores | None":
        """Return the scores of a step that were saved; None where there are none."""
        try:
            return cls(**json.loads(folder.evaluation_of(step).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None


def evaluate(
    prompts: Sequence[Prompt],
    spec: RFTJobSpec,
    seed: int,
    step: int,
    engine: RolloutEngine,
    scorer: Scorer,
    should_stop: Callable[[], bool],
) -> RowScores:
    """Generate and grade completions of every held-out prompt with the engine's current adapter.

    With greedy decoding each prompt gets one sample, and top-k and top-p are off.
    """
    evaluation, sampling = spec.evaluation, spec.sampling
    if evaluation.temperature == 0:
        samples = 1
        parameters = SamplingParameters.greedily(sampling.max_tokens, sampling.stop)
    else:
        samples = evaluation.samples
        parameters = SamplingParameters(
            evaluation.temperature,
            sampling.top_p,
            sampling.top_k,
            sampling.max_tokens,
            tuple(sampling.stop or ()),
        )
    # The seeds do not depend on the step, so differences between evaluations come from the policies alone.
    requests = rollout_requests(prompts, samples, parameters, seed, "held-out")
    completions = engine.generate(requests, should_stop)
    scores = scorer.score(grade_items(prompts, completions), should_stop)
    by_row = rollouts_by_prompt(prompts, completions, scores)
    return RowScores(
        step=step,
        lines=[prompt.row.line for prompt in prompts],
        reward=[_mean([r.score.reward for r in row]) for row in by_row],
        graders={
            grader.name: [_mean([r.score.per_grader.get(grader.name) for r in row]) for row in by_row]
            for grader in spec.graders
        },
        completions=[row[0].generated.text for row in by_row],
        truncated=_share_truncated([rollout for row in by_row for rollout in row]),
    )


def compare(
    base: RowScores,
    tuned: RowScores | None,
    seed: int,
    best: RowScores | None = None,
    selected: bool = False,
) -> EvaluationResult:
    """Return the comparison of the policies: means, paired differences and their intervals.

    ``selected``: ``best`` is the best of several policies, so its difference is biased upwards.
    """
    chosen = None
    if best is not None:
        chosen = BestEvaluation(step=best.step, reward=_side_by_side(base.reward, best.reward, seed))
    return EvaluationResult(
        rows=len(base.lines),
        step=tuned.step if tuned else 0,
        reward=_side_by_side(base.reward, tuned.reward if tuned else None, seed),
        graders={
            name: _side_by_side(scores, tuned.graders[name] if tuned else None, seed)
            for name, scores in base.graders.items()
        },
        **known(best=chosen),
        selected=selected,
    )


def is_best(state: RunState, reward: float) -> bool:
    """Return whether a held-out reward is the highest of all trained policies so far."""
    return state.step > 0 and (state.best_reward is None or reward > state.best_reward)


def comparison(
    folder: RunFolder, state: RunState, base: RowScores, tuned: RowScores | None, seed: int
) -> EvaluationResult:
    """Compare the base, the tuned and the best policy, whose scores are read from the folder."""
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
