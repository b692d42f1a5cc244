"""The training loop, from the first evaluation to the last.

Each batch has one optimizer step, so the policy ratio (new over old policy) is 1 when its gradient is taken.
The batch was sampled by the current policy, or by the one before it where generation overlaps training
(``lookahead``).
"""

import json
import logging
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from rft_api.conditions import Reason
from rft_api.lifecycle import Stop
from rft_api.status import RunStatus
from rft_planner.steps import first_expectation
from rft_run.config import RunConfig
from rft_run.errors import ConfigurationError, DataError, Preempted, UserCodeError
from rft_run.state import RunState
from rft_trainer import files, preflight
from rft_trainer.checkpoint import Fence
from rft_trainer.data import Prompt, batching, opening
from rft_trainer.data.source import discard
from rft_trainer.data.training import Batch
from rft_trainer.evaluate import RowScores, compare, evaluate
from rft_trainer.learn.update import update
from rft_trainer.monitors.metrics import metrics_row
from rft_trainer.monitors.progress import Events, Stage, Status
from rft_trainer.monitors.records import MetricsFile, clean, save_rollouts
from rft_trainer.monitors.report import Reporter
from rft_trainer.monitors.tracking.trackers import Trackers
from rft_trainer.rollout.groups import SampledBatch, sample_batch
from rft_trainer.rollout.prefetch import Lookahead
from rft_trainer.setup import Parts, prepare
from rft_trainer.stopping import stop_reason

log = logging.getLogger(__name__)


class Run:
    """One attempt at a run; ``train`` is its only entry point."""

    def __init__(
        self,
        config: RunConfig,
        reporter: Reporter,
        events: Events,
        should_stop: Callable[[], bool],
        trackers: Trackers | None = None,
    ) -> None:
        """Take ownership of the run's folder. Raises VolumeError."""
        self.config = config
        self.spec = config.spec
        self.seed = config.effective.seed
        self.folder = Path(config.run_dir)
        self.reporter = reporter
        self.events = events
        self.should_stop = should_stop
        self.trackers = trackers or Trackers()
        self.fence = Fence(self.folder)
        self.status = Status(config, self.fence.number)
        self.state = RunState(expected_completion=first_expectation(config.spec.sampling.max_tokens))
        self.metrics: MetricsFile | None = None

    def train(self) -> str:
        """Run to the end and return the reason of completion. Raises the errors of ``errors``."""
        self._enter("preparing")
        with ExitStack() as stack:
            parts = prepare(self.config, self.fence, stack, self.should_stop)
            self._resume(parts)
            self.trackers.start(self.state.step, self.fence.number, self.metrics.rows if self.metrics else ())
            try:
                self._preflight(parts)
                base = self._evaluate_base(parts)
                reason = self._steps(parts)
                self._evaluate_tuned(parts, base)
            except Preempted:
                # Never raised while the state changes: it is that of the last complete step.
                self._save(parts)
                raise
            self._finish(parts)
        return reason

    def _steps(self, parts: Parts) -> str:
        """Train until the last epoch ends or a stop rule applies; return the reason."""
        self._enter("training")
        heldout_reward: float | None = None
        with Lookahead() as ahead:
            while True:
                reason = stop_reason(self._stop(), self.state, heldout_reward, datetime.now(UTC))
                if reason is not None:
                    return reason
                begun = ahead.take()
                laid_out = begun.laid_out if begun is not None else self._next_batch(parts)
                if not laid_out.prompts:
                    return Reason.COMPLETED
                self._step(parts, laid_out, begun.sampled if begun is not None else None, ahead)
                heldout_reward = self._evaluate_if_due(parts)
                if self.state.step % self.spec.checkpoint.every_steps == 0:
                    self._save(parts)

    def _step(
        self, parts: Parts, laid_out: Batch, begun: Future[SampledBatch] | None, ahead: Lookahead
    ) -> None:
        """Sample, grade, update, publish: one batch, one optimizer step."""
        started = time.monotonic()
        step = self.state.step + 1
        batch = begun.result() if begun is not None else self._sample(parts, laid_out.prompts, step)
        if batch.scores.mostly_errors:
            self._save(parts)
            raise UserCodeError(f"more than half of step {step} could not be graded: {_first(batch)}")

        self._look_ahead(parts, laid_out, ahead)
        update_started = time.monotonic()
        rate = parts.schedule.set(step, self._total_steps(parts))
        kept = [group for group in batch.groups if not group.dropped]
        result = update(parts.policy, parts.optimizer, kept, parts.update, self.should_stop, parts.followers)
        self._advance(batch, laid_out)
        updated = time.monotonic()
        ahead.settle()
        publish_started = time.monotonic()
        self.fence.check()
        if result.moved:
            self._publish_adapter(parts)
        ended = time.monotonic()

        self.state.gpu_seconds += self.config.gpus * (ended - started)
        seconds = {
            "rollout": batch.rollout_seconds,
            "grade": batch.grade_seconds,
            "update": updated - update_started,
            "publish": ended - publish_started,
        }
        row = metrics_row(self.state, batch, result, rate, seconds, ended - started, self.fence.number)
        assert self.metrics is not None
        self.fence.check()  # a newer attempt may have started during a long publish
        self.metrics.append(row)
        save_rollouts(self.folder / "rollouts", step, batch.groups)
        self.trackers.log(row)
        self.status.total_steps = self._total_steps(parts)
        self.status.total_steps_estimated = not self._is_last(parts)
        snapshot = self._report(parts)
        self.events.emit(
            "step",
            totalSteps=snapshot.progress.total_steps,
            totalStepsEstimated=snapshot.progress.total_steps_estimated,
            etaSeconds=snapshot.progress.eta_seconds,
            **row,
        )

    def _look_ahead(self, parts: Parts, laid_out: Batch, ahead: Lookahead) -> None:
        """Start sampling the batch after ``laid_out``, if there is one and generation overlaps training."""
        stop, step = self._stop(), self.state.step + 2
        is_last = stop is not None and stop.max_steps is not None and step > stop.max_steps
        if is_last or not parts.overlaps:
            return
        try:
            following = parts.train.batch(laid_out.after, *self._room())
        except DataError:
            return  # raised again when the batch is needed, so that the current step is still finished
        if following.prompts:
            ahead.begin(following, lambda: self._sample(parts, following.prompts, step))

    def _next_batch(self, parts: Parts) -> Batch:
        """Return the next batch, empty after the last epoch. Raises DataError for broken rows."""
        try:
            return parts.train.batch(self.state.position, *self._room())
        except DataError:
            self._save(parts)
            raise

    def _room(self) -> tuple[int, int, float, int]:
        """Return epochs, rollouts per prompt, expected completion length in tokens, and tokens per step."""
        training = self.spec.training
        rollouts = self.spec.sampling.num_rollouts
        return training.epochs, rollouts, self.state.expected_completion, training.batch_size_tokens

    def _advance(self, batch: SampledBatch, laid_out: Batch) -> None:
        """Update the state after a batch was trained."""
        state = self.state
        accepted = [rollout for group in batch.groups for rollout in group.accepted]
        lengths = [len(rollout.generated.token_ids) for rollout in accepted]
        state.position = laid_out.after
        state.dropped_prompts += laid_out.dropped
        self.status.dropped_prompts += laid_out.dropped
        state.step += 1
        state.expected_completion = batching.next_expectation(state.expected_completion, lengths)
        state.prompt_tokens += sum(len(g.accepted) * len(g.prompt.token_ids) for g in batch.groups)
        state.completion_tokens += sum(lengths)
        state.dropped_groups += sum(group.dropped for group in batch.groups)
        for name, count in batch.scores.error_counts.items():
            state.grader_errors[name] = state.grader_errors.get(name, 0) + count

    def _publish_adapter(self, parts: Parts) -> None:
        """Save the adapter as a new version, sample from it, and remove all but the last two versions."""
        self.state.adapter_version += 1
        adapters = self.folder / "adapters"
        version = parts.policy.save_version(adapters, self.state.adapter_version, self.fence.check)
        parts.engine.use_adapter(version)
        self.status.samplers_restarted = parts.engine.restarts
        for old in sorted(adapters.glob("v*"))[:-2]:
            shutil.rmtree(old, ignore_errors=True)

    def _total_steps(self, parts: Parts) -> int:
        """Return the total number of steps, estimated from the completion lengths so far."""
        total = self.state.step + parts.train.steps_left(self.state.position, *self._room())
        stop = self._stop()
        limit = stop.max_steps if stop is not None else None
        return total if limit is None else min(total, max(limit, self.state.step))

    def _stop(self) -> Stop | None:
        """Return ``spec.stop``: as the operator sent it last, else as the run was started with."""
        return self.reporter.stop if self.reporter.stop is not None else self.spec.stop

    def _is_last(self, parts: Parts) -> bool:
        """Whether no step is left, by the current estimate."""
        return self._total_steps(parts) == self.state.step

    def _preflight(self, parts: Parts) -> None:
        """Check the rewards of a few prompts, once per run. Raises ConfigurationError under ``require``."""
        if self.spec.model.adapter is not None and self._saved_evaluation(0) is None:
            version = parts.policy.save_version(self.folder / "adapters", 0, self.fence.check)
            parts.engine.use_adapter(version)
        if self.spec.preflight == "off":
            return
        found = preflight.saved(self.folder)
        if found is None:
            found = preflight.findings(self._sample(parts, parts.train.first(preflight.PROMPTS), 0))
            self.fence.check()
            preflight.save(self.folder, found)
        self.status.preflight = found
        for finding in found:
            log.warning("preflight: %s: %s", finding.parameter, finding.message)
        if found and self.spec.preflight == "require":
            raise ConfigurationError("; ".join(f"{entry.parameter}: {entry.message}" for entry in found))

    def _sample(self, parts: Parts, prompts: list[Prompt], step: int) -> SampledBatch:
        """Sample and grade a batch with the sampling parameters of training."""
        return sample_batch(
            prompts,
            self.spec.sampling.num_rollouts,
            parts.sampling,
            parts.update.loss.shape.normalization,
            self.seed,
            step,
            parts.engine,
            parts.scorer,
            self.should_stop,
        )

    # --- evaluation -------------------------------------------------------------------------------

    def _evaluate_base(self, parts: Parts) -> RowScores:
        """Evaluate the starting policy, once per run."""
        saved = self._saved_evaluation(0)
        if saved is None:
            self._enter("evaluatingBase")
            saved = self._evaluate(parts, 0)
        self.status.evaluation = compare(saved, None, self.seed)
        if self.state.adapter_version > 0:
            self._publish_adapter(parts)
        self._report(parts)
        return saved

    def _evaluate_if_due(self, parts: Parts) -> float | None:
        """Evaluate every ``evaluation.everySteps`` steps; return the mean held-out reward, else None."""
        every = self.spec.evaluation.every_steps
        if every is None or self.state.step % every:
            return None
        scores = self._evaluate(parts, self.state.step)
        if not self._is_best(parts, scores):
            self.state.evaluations_without_best += 1
        base = self._saved_evaluation(0)
        assert base is not None
        self._compare(base, scores)
        self._report(parts)
        return scores.mean_reward

    def _evaluate_tuned(self, parts: Parts, base: RowScores) -> None:
        """Evaluate the final policy on the same rows as the base."""
        self._save(parts)
        self._enter("evaluatingTuned")
        tuned = self._saved_evaluation(self.state.step) or self._evaluate(parts, self.state.step)
        self._is_best(parts, tuned)
        self._compare(base, tuned)

    def _is_best(self, parts: Parts, scores: RowScores) -> bool:
        """Return whether the held-out reward is the highest so far; if so, save the checkpoint as best."""
        state = self.state
        if state.step == 0 or (state.best_reward is not None and scores.mean_reward <= state.best_reward):
            return False
        state.best_reward, state.best_step = scores.mean_reward, state.step
        state.evaluations_without_best = 0
        self._save(parts)
        return True

    def _compare(self, base: RowScores, tuned: RowScores) -> None:
        """Write the comparison of base, tuned and best policy into the status."""
        best = self._saved_evaluation(self.state.best_step) if self.state.best_step else None
        several = len(list((self.folder / "evaluation").glob("step-*.json"))) > 2  # one of them is the base's
        self.status.evaluation = compare(base, tuned, self.seed, best, selected=several)

    def _evaluate(self, parts: Parts, step: int) -> RowScores:
        started = time.monotonic()
        scores = evaluate(
            parts.heldout, self.spec, self.seed, step, parts.engine, parts.scorer, self.should_stop
        )
        self.state.gpu_seconds += self.config.gpus * (time.monotonic() - started)
        self.fence.check()
        scores.save(self.folder / "evaluation")
        self.trackers.evaluation(scores)
        self.events.emit("evaluation", step=step, reward=scores.mean_reward, rows=len(scores.lines))
        return scores

    def _saved_evaluation(self, step: int) -> RowScores | None:
        """Read the evaluation of a step that an earlier attempt saved; None where there is none."""
        path = self.folder / "evaluation" / f"step-{step:06d}.json"
        try:
            return RowScores.from_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    # --- state ------------------------------------------------------------------------------------

    def _resume(self, parts: Parts) -> None:
        """Restore the newest checkpoint, where there is one."""
        state = parts.checkpoints.load_latest(parts.policy, parts.optimizer, parts.schedule)
        if state is not None:
            self.state = state
            self.events.emit("resumed", step=state.step)
            self._name_checkpoints(parts, parts.checkpoints.path(state.step))
        self.status.resumed_from_step = self.state.step
        self.status.dropped_prompts = parts.dropped_prompts + self.state.dropped_prompts
        self.fence.check()  # the load took long; what a newer attempt has written must not be removed
        self.metrics = MetricsFile(self.folder / "metrics.jsonl", self.state.step)
        clean(self.folder, self.state.step)
        self.status.total_steps = self._total_steps(parts)

    def _save(self, parts: Parts) -> None:
        """Write a checkpoint of the last complete step."""
        if self.state.step == 0:
            return  # nothing is trained yet, so a new start gives the same result
        path = parts.checkpoints.save(self.state, parts.policy, parts.optimizer, parts.schedule)
        self._name_checkpoints(parts, path)

    def _name_checkpoints(self, parts: Parts, newest: Path) -> None:
        """Write the paths of the newest and the best checkpoint into the status."""
        named = {"checkpoint": str(newest)}
        if self.state.best_step:
            named["best_checkpoint"] = str(parts.checkpoints.path(self.state.best_step))
        self.status.output = self.status.output.model_copy(update=named)

    def _finish(self, parts: Parts) -> None:
        """Write the final adapter to ``adapter/`` in the run's folder."""
        self.fence.check()
        target = self.folder / "adapter"
        shutil.rmtree(target, ignore_errors=True)
        with files.new_folder(target, self.fence.check) as unfinished:
            parts.policy.save_adapter(unfinished)
        self.status.output = self.status.output.model_copy(update={"adapter": str(target)})
        discard(self.folder / opening.FOLDER)
        self.status.total_steps = self.state.step
        self.status.total_steps_estimated = False
        self._enter("finished")

    def _enter(self, stage: Stage) -> None:
        self.status.stage = stage
        self.events.emit("stage", stage=stage)
        self.reporter.publish(self.snapshot(), force=True)

    def _report(self, parts: Parts) -> RunStatus:
        self.status.samplers_restarted = parts.engine.restarts
        snapshot = self.snapshot()
        self.reporter.publish(snapshot)
        return snapshot

    def snapshot(self) -> RunStatus:
        """Return the current status of the run."""
        return self.status.snapshot(self.state, self.metrics.rows if self.metrics else [])


def _first(batch: SampledBatch) -> str:
    """Return the first error message of each grader."""
    return "; ".join(f"{name}: {message}" for name, message in batch.scores.first_errors.items())
