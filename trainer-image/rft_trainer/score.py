"""Evaluates policies on a run's held-out rows, without training. ``rft evaluate`` starts it.

    python -m rft_trainer --config FILE --evaluate [--limit N] [--adapter DIR --step N]

It evaluates the starting policy. With ``--adapter`` it also evaluates a tuned policy on the same rows. It
writes the files that a run writes, into the run folder of the configuration: the evaluation and the rollouts
of each policy, and the status with a comparison of the policies.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from rft_api.conditions import COMPLETED_BECAUSE, Reason
from rft_api.status import RFTJobStatus, Stage
from rft_run.config import RunConfig
from rft_run.errors import ConfigurationError, ModelError, first_line
from rft_run.events import EvaluationEvent, StageEvent
from rft_run.exit_codes import ExitCode
from rft_run.folder import RunFolder
from rft_run.report import Ending
from rft_run.status_file import write_status
from rft_trainer import files
from rft_trainer.attempt import ending_of
from rft_trainer.data import Prompt
from rft_trainer.data.source import discard
from rft_trainer.evaluate import RowScores, compare, heldout_rollouts, row_scores
from rft_trainer.monitors.monitors import end_event
from rft_trainer.monitors.progress import Events
from rft_trainer.monitors.records import save_rollouts
from rft_trainer.rollout.engine import AdapterVersion
from rft_trainer.rollout.groups import Group
from rft_trainer.runtime import machine, memory
from rft_trainer.runtime.loading import check_adapter
from rft_trainer.serve import settings_of
from rft_trainer.setup import SamplingParts, prepare_sampling, warm_start_of

log = logging.getLogger("rft_trainer")


class ScoredPolicy(NamedTuple):
    """A policy to evaluate: the base model with or without an adapter.

    - ``step``: the step after which a run saved the adapter. 0 for the starting policy.
    - ``adapter``: the folder of the adapter. None: the base model alone.
    """

    step: int
    adapter: Path | None

    @property
    def stage(self) -> Stage:
        """The name of the stage that the user sees while this policy is evaluated."""
        return "evaluatingTuned" if self.step else "evaluatingBase"


def score(
    config: RunConfig,
    tuned: ScoredPolicy | None,
    limit: int | None,
    should_stop: Callable[[], bool],
    events: Events | None = None,
) -> int:
    """Evaluate the starting policy and ``tuned`` on held-out rows. Report the end, and return the exit code.

    - ``tuned``: a tuned policy. None: only the starting policy is evaluated.
    - ``limit``: maximum number of rows. None: all held-out rows.
    - ``events``: writes the progress as JSON lines. None: they go to standard output.

    Errors are not raised: they become the exit code.
    """
    events = events or Events()
    kills = machine.out_of_memory_kills()
    try:
        policies = [ScoredPolicy(0, warm_start_of(config)), *([tuned] if tuned is not None else [])]
        _score(_with_rank(config, policies), policies, limit, should_stop, events)
        done = Reason.COMPLETED
        ending = Ending(exit_code=ExitCode.OK, reason=done, message=COMPLETED_BECAUSE[done])
    except Exception as raised:
        ending = ending_of(memory.after_kills(raised, config, kills))
    events.emit(end_event(ending))
    return ending.exit_code


def _with_rank(config: RunConfig, policies: Sequence[ScoredPolicy]) -> RunConfig:
    """Return a copy of ``config`` with ``loraRank`` set to the largest rank of the policies' adapters.

    The sampler reserves memory for this rank. If no policy has an adapter, return ``config`` unchanged.

    Raises ModelError if a folder is not an adapter, or if the adapter could run code.
    """
    ranks = []
    for adapter in (policy.adapter for policy in policies if policy.adapter is not None):
        try:
            check_adapter(adapter)
        except (OSError, ValueError) as error:
            raise ModelError(f"{adapter}: is not an adapter that can be loaded: {error}") from error
        ranks.append(settings_of(adapter).rank)
    if not ranks:
        return config
    training = config.spec.training.model_copy(update={"lora_rank": max(ranks)})
    return config.model_copy(update={"spec": config.spec.model_copy(update={"training": training})})


def _score(
    config: RunConfig,
    policies: Sequence[ScoredPolicy],
    limit: int | None,
    should_stop: Callable[[], bool],
    events: Events,
) -> None:
    folder, seed = RunFolder(Path(config.run_dir)), config.effective.seed
    events.emit(StageEvent(event="stage", stage="preparing"))
    with ExitStack() as stack:
        parts = prepare_sampling(config, stack, should_stop)
        prompts = parts.heldout[:limit]
        if not prompts:
            raise ConfigurationError(
                "spec.evaluation.fraction: 0 holds out no rows, and there is no spec.evaluation.dataset; pass"
                " a file of rows with --rows FILE"
            )
        scores = []
        for policy in policies:
            events.emit(StageEvent(event="stage", stage=policy.stage))
            _use(parts, policy, config.spec.model.name)
            scores.append(_evaluated(config, parts, prompts, policy.step, folder, should_stop))
            found = scores[-1]
            events.emit(
                EvaluationEvent(
                    event="evaluation", step=found.step, reward=found.mean_reward, rows=len(found.lines)
                )
            )
    base, *others = scores
    compared = compare(base, others[0] if others else None, seed)
    status = RFTJobStatus(phase="Succeeded", evaluation=compared)
    with files.volume_errors(folder.status):
        write_status(folder.status, status)
    discard(folder.data)


def _use(parts: SamplingParts, policy: ScoredPolicy, model: str) -> None:
    """Make the sampler use the adapter of ``policy``, or the base model if the policy has no adapter.

    ``model``: the name of the base model, for the error's message. Raises ModelError if the adapter does not
    fit the base model, and SamplerError.
    """
    if policy.adapter is None:
        return parts.engine.use_adapter(None)
    version = AdapterVersion(f"step-{policy.step}", policy.adapter)
    try:
        parts.engine.use_adapter(version)
    except (OSError, ValueError, RuntimeError) as error:
        first = first_line(error)
        raise ModelError(f"{policy.adapter}: does not fit the base model {model}: {first}") from error


def _evaluated(
    config: RunConfig,
    parts: SamplingParts,
    prompts: Sequence[Prompt],
    step: int,
    folder: RunFolder,
    should_stop: Callable[[], bool],
) -> RowScores:
    """Evaluate the policy that the sampler uses. Write its scores and rollouts to the run's ``folder``.

    Return the scores. ``step``: the step after which the policy was saved. 0 for the starting policy.
    """
    by_row = heldout_rollouts(
        prompts, config.spec, parts.sampling, config.effective.seed, parts.generate, parts.scorer, should_stop
    )
    scores = row_scores(prompts, by_row, config.spec, step)
    scores.save(folder)
    # No rollout is trained on, so none has an advantage.
    groups = [Group(prompt, rollouts, (), ()) for prompt, rollouts in zip(prompts, by_row, strict=True)]
    save_rollouts(folder, step, groups)
    return scores
