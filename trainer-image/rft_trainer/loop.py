"""The training loop: one attempt at a run, from the first evaluation to the last one.

The algorithm is in ``_train``, ``_step`` and ``_sample``. A step trains on one batch, with one or several
optimizer steps (``learn.update``). Usually the current policy has sampled the batch. If generation overlaps
training (``rollout.prefetch``), an earlier policy has sampled it.
"""

import logging
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rft_api.conditions import Reason
from rft_api.lifecycle import Stop
from rft_api.status import PhaseSeconds, RewardPoint
from rft_planner.steps import first_expectation
from rft_run.card import Card, dress, licence_of
from rft_run.config import RunConfig
from rft_run.errors import ConfigurationError, DataError, Preempted, UserCodeError
from rft_run.fingerprint import hub_commit
from rft_run.folder import RunFolder
from rft_run.mismatch import Mismatch
from rft_run.state import Position, RunState
from rft_trainer import canaries, files, preflight
from rft_trainer.accounting import count_batch
from rft_trainer.checkpoint import Fence
from rft_trainer.data import Prompt
from rft_trainer.data.source import discard
from rft_trainer.data.training import Batch
from rft_trainer.engines import model_dtype
from rft_trainer.evaluate import RowScores, comparison, evaluate, is_best, refuse_other_prompts
from rft_trainer.learn.update import update
from rft_trainer.monitors.metrics import step_record
from rft_trainer.monitors.monitors import Monitors
from rft_trainer.monitors.progress import Events, curve
from rft_trainer.monitors.report import Reporter
from rft_trainer.monitors.tracking.trackers import Trackers
from rft_trainer.probe import SamplerProbe, refuse_mismatch
from rft_trainer.publish import Pin
from rft_trainer.result import deliver
from rft_trainer.rollout.engine import unnoticed
from rft_trainer.rollout.groups import SampledBatch, form_groups, grade_items, rollout_requests
from rft_trainer.rollout.prefetch import Ahead, Prefetch, SamplingState
from rft_trainer.setup import Parts, prepare
from rft_trainer.stopping import stop_reason

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Pinned:
    """The adapter version that samples one batch in advance, and the progress of this sampling.

    It is used only if several batches may be sampled while another one is trained on.
    """

    pin: Pin
    state: SamplingState


class Run:
    """One attempt at a run: one start of the trainer, which begins or resumes the training.

    Callers use ``train``, then ``deliver``, and then ``monitors`` to report the end.
    """

    def __init__(
        self,
        config: RunConfig,
        reporter: Reporter,
        events: Events,
        should_stop: Callable[[], bool],
        trackers: Trackers | None = None,
    ) -> None:
        """Make this attempt the owner of the run's folder, so that earlier attempts may no longer write.

        Raises VolumeError if the folder cannot be written.
        """
        self.config = config
        self.spec = config.spec
        self.seed = config.effective.seed
        self._canaries = [grader.name for grader in self.spec.graders if grader.is_canary]
        self.folder = RunFolder(Path(config.run_dir))
        self.reporter = reporter
        self.should_stop = should_stop
        self.fence = Fence(self.folder)
        expected = first_expectation(config.spec.rollout_tokens, config.effective.max_context_length)
        self.state = RunState(expected_completion=expected)
        self.monitors = Monitors(
            config, reporter, events, trackers or Trackers(), lambda: self.state, self.fence.number
        )

    def train(self) -> str:
        """Train, evaluate, and save the final adapter. Return why training ended: a value of ``Reason``.

        If there is a checkpoint, training continues from it. Raises the errors of ``rft_run.errors``.
        """
        self.monitors.stage("preparing")
        with ExitStack() as stack:
            parts = prepare(self.config, self.fence, stack, self.should_stop)
            parts.policy.dress = self._dresser(parts.policy.folder)
            self._resume(parts)
            try:
                self._probe_sampler(parts)
                self._preflight(parts)
                base = self._evaluate_base(parts)
                reason = self._train(parts, base)
                if reason == Reason.CANARY:
                    self._return_before_the_fall(parts)
                self._save(parts)
                if base is not None:
                    self._evaluate_tuned(parts, base)
            except Preempted:
                # Never raised while the state changes, so this saves the state of the last complete step.
                self._save(parts)
                raise
            self._finish(parts)
        return reason

    def deliver(self) -> list[str]:
        """Copy the final or the best adapter to the hub or the bucket that ``spec.output`` names.

        Return a list with one sentence about the result. The list is empty if the job names no destination.
        Raises Fenced if a newer attempt has replaced this one.
        """
        self.fence.check()
        done = deliver(self.config, self.state.best_step, self.should_stop)
        if done is not None and done.address is not None:
            self.monitors.status.add_output(pushed=done.address)
        return [] if done is None else [done.message]

    # --- the algorithm ----------------------------------------------------------------------------

    def _train(self, parts: Parts, base: RowScores | None) -> str:
        """Run training steps until the last epoch ends or a rule of ``spec.stop`` applies.

        ``base``: the held-out scores of the starting policy. None: the evaluation is off.
        Return why training ended: a value of ``Reason``.
        """
        self.monitors.stage("training")
        heldout_reward: float | None = None
        with Prefetch(parts.ahead, parts.together) as prefetch:
            while True:
                fall = canaries.fall(self._stop(), self._curve(), self._canaries)
                reason = stop_reason(self._stop(), self.state, heldout_reward, datetime.now(UTC), fall)
                if reason is not None:
                    return reason
                started = time.monotonic()
                batch = self._next_batch(parts, prefetch)
                if not batch.prompts:
                    return Reason.COMPLETED
                self._step(parts, batch, prefetch, started)
                heldout_reward = self._evaluate_if_due(parts, prefetch, base)
                due = canaries.checkpoint_due(self._stop(), self.state.step)
                if due or self.state.step % self.spec.checkpoint.every_steps == 0:
                    self._save(parts)

    def _step(self, parts: Parts, batch: Batch, prefetch: Prefetch, started: float) -> None:
        """Run one training step: sample rollouts, update the policy, and publish its adapter to the sampler.

        - ``batch``: the prompts of the step. ``prefetch`` may have sampled their rollouts already.
        - ``started``: the value of ``time.monotonic()`` before the trainer waited for the batch. The reported
          duration of the step includes this wait.
        """
        step = self.state.step + 1
        ahead = prefetch.take()
        sampled = ahead or self._sample(parts, batch.prompts, step, self.should_stop)
        self._refuse_failing_graders(parts, sampled, step)
        if ahead is None or parts.ahead == 1:  # else ``_sample_ahead`` has refilled the batch
            batch, sampled = self._refill(parts, batch, sampled, step, self.should_stop)
            self._refuse_failing_graders(parts, sampled, step)
        self._prefetch(parts, batch, prefetch)

        update_started = time.monotonic()
        rate = parts.schedule.set(step, self._total_steps(parts))
        staleness = self.state.adapter_version - sampled.adapter_version
        settings = parts.update.for_stale() if staleness > 0 else parts.update
        groups = sampled.varied if self.config.effective.refill_rounds > 0 else sampled.kept
        result = update(parts.policy, parts.optimizer, groups, settings, self.should_stop, parts.followers)
        # After a stale batch was sampled, the policy has changed, so its log-probs differ without an error.
        if staleness == 0:
            measured = Mismatch(result.mismatch_kl, result.mismatch_mean_abs, result.tokens)
            refuse_mismatch(measured, f"step {step}")
        self._count(batch, sampled)
        updated = time.monotonic()

        if parts.ahead == 1:  # if more batches are sampled ahead, a sampling thread loads the new version
            prefetch.wait()
        publish_started = time.monotonic()
        self.fence.check()
        if result.moved:
            self._publish(parts)
        ended = time.monotonic()

        self.state.gpu_seconds += self.config.gpus * (ended - started)
        phases = PhaseSeconds(
            rollout=sampled.rollout_seconds,
            grade=sampled.grade_seconds,
            update=updated - update_started,
            publish=ended - publish_started,
        )
        self._describe(parts)
        self.fence.check()  # a newer attempt may have started during a long publish
        record = step_record(
            self.state, sampled, result, staleness, rate, phases, ended - started, self.fence.number
        )
        self.monitors.step(record, sampled.groups)

    def _sample(
        self,
        parts: Parts,
        prompts: list[Prompt],
        step: int,
        should_stop: Callable[[], bool],
        pinned: _Pinned | None = None,
    ) -> SampledBatch:
        """Sample rollouts of each prompt, grade them, and compute their advantages within each group.

        ``pinned``: the adapter version that samples. None: the sampler loads the newest version.
        """
        version = pinned.pin.version if pinned is not None else parts.publisher.load()
        started = time.monotonic()
        count, adapter = self.spec.sampling.num_rollouts, pinned.pin.adapter if pinned is not None else None
        requests = rollout_requests(prompts, count, parts.sampling, self.seed, step, adapter)
        if pinned is not None:
            pinned.state.ask(len(requests))
        answered = pinned.state.answer if pinned is not None else unnoticed
        completions = parts.generate(prompts, requests, should_stop, answered)
        generated = time.monotonic()
        scores = parts.scorer.score(grade_items(prompts, completions), should_stop)
        graded = time.monotonic()
        groups = form_groups(
            prompts, completions, scores, parts.update.loss.shape.normalization, parts.overlong
        )
        seconds = generated - started, graded - generated
        return SampledBatch(groups, scores, *seconds, adapter_version=version)

    def _refill(
        self,
        parts: Parts,
        batch: Batch,
        sampled: SampledBatch,
        step: int,
        should_stop: Callable[[], bool],
        pinned: _Pinned | None = None,
    ) -> tuple[Batch, SampledBatch]:
        """Sample more prompts for a step, to replace groups in which all rewards are equal.

        Return the batch and its rollouts, with the new prompts and rollouts added. A round samples one prompt
        for each group that is still to be replaced. There are at most ``refillRounds`` rounds. ``pinned``:
        the adapter version that samples. None: the newest version.
        """
        wanted, rounds = len(sampled.kept), self.config.effective.refill_rounds
        for number in range(1, rounds + 1):
            missing = wanted - len(sampled.varied)
            if missing <= 0:
                break
            try:
                further = parts.train.further(batch.after, missing)
            except DataError:
                break  # this step is still completed: the choice of the next batch raises this error again
            batch = batch.followed_by(further)
            if not further.prompts:
                break
            if pinned is not None and number == rounds:
                pinned.state.ends_at(batch.after)
            sampled = sampled.joined(self._sample(parts, further.prompts, step, should_stop, pinned))
            if sampled.scores.mostly_errors:
                break
        return batch, sampled

    def _publish(self, parts: Parts) -> None:
        """Save the current policy's adapter as a new version, and let the sampler load this version.

        If several batches may be sampled ahead, only save the version, because the sampler may be busy with a
        batch. Then a sampling thread lets the sampler load the version before the next batch.
        """
        self.state.adapter_version += 1
        parts.publisher.save(self.state.adapter_version)
        if parts.ahead > 1:
            return
        # Once the run is asked to stop, it does not wait for a vLLM that has to start again. The step is
        # complete, so it is recorded first; the next use of the sampler raises Preempted again.
        with suppress(Preempted):
            parts.publisher.load()

    def _return_before_the_fall(self, parts: Parts) -> None:
        """Restore the last checkpoint from before the score of a canary fell, and publish its adapter.

        A canary is a grader of weight 0. If there is no checkpoint, the current weights stay, and a warning
        is logged. These values of the run's state are not restored: the totals of GPU time, grader errors and
        forged replies, and the number of the newest adapter version.
        """
        fall = canaries.fall(self._stop(), self._curve(), self._canaries)
        assert fall is not None
        step = canaries.last_before(self.folder.steps_with_checkpoint(), fall.step)
        if step is None:
            said = "the canary %s fell after step %d, but no checkpoint exists: the current weights stay"
            log.warning(said, fall.canary, fall.step)
            return
        said = "the canary %s fell after step %d: the checkpoint of step %d is restored"
        log.warning(said, fall.canary, fall.step, step)
        used = self.state
        self.state = parts.checkpoints.load(step, parts.policy, parts.optimizer, parts.schedule)
        self.state.adapter_version, self.state.gpu_seconds = used.adapter_version, used.gpu_seconds
        self.state.grader_errors = used.grader_errors
        self.state.forged_replies = used.forged_replies
        self._publish(parts)

    def _curve(self) -> list[RewardPoint]:
        """Return the reward curve if ``stop.canary`` is set, else an empty list: no other rule needs it."""
        stop = self._stop()
        return curve(self.monitors.records) if stop is not None and stop.canary is not None else []

    # --- batches ----------------------------------------------------------------------------------

    def _next_batch(self, parts: Parts, prefetch: Prefetch) -> Batch:
        """Return the prompts of the next step. After the last epoch the batch is empty.

        If a row is invalid, save a checkpoint and raise DataError. If the rollouts of the batch were sampled
        in advance and the sampling failed, raise the error of the sampling.
        """
        try:
            return prefetch.batch or parts.train.batch(self.state.position, *self._room())
        except DataError:
            self._save(parts)
            raise

    def _prefetch(self, parts: Parts, batch: Batch, prefetch: Prefetch) -> None:
        """Begin to sample the batches that follow ``batch``, in the background.

        The queue of ``prefetch`` is filled up to ``parts.ahead`` batches, but not with batches for steps
        after ``stop.maxSteps``.
        """
        stop, room = self._stop(), self._room()

        def stop_early() -> bool:
            return prefetch.failed or self.should_stop()

        while prefetch.begun < parts.ahead:
            step = self.state.step + 2 + prefetch.begun
            if stop is not None and stop.max_steps is not None and step > stop.max_steps:
                return
            prefetch.begin(batch.after, partial(self._sample_ahead, parts, step, room, stop_early))

    def _sample_ahead(
        self,
        parts: Parts,
        step: int,
        room: tuple[int, int, float, int],
        should_stop: Callable[[], bool],
        position: Position,
        state: SamplingState,
    ) -> Ahead:
        """Choose the prompts of a later step, and sample their rollouts in advance.

        If several batches may be sampled in advance, also replace groups with equal rewards. All rollouts of
        the batch are then sampled by one adapter version.

        - ``step``: the number of the later step.
        - ``room``: the result of ``_room``, which limits the number of prompts.
        - ``position``: where the batch begins in the data.
        - ``state``: records the progress of the sampling.

        Raises DataError and the errors of sampling. They end the run only when this step is reached.
        """
        batch = parts.train.batch(position, *room)
        if not batch.prompts:
            return Ahead(batch, None)
        if parts.ahead == 1:
            return Ahead(batch, self._sample(parts, batch.prompts, step, should_stop))
        if self.config.effective.refill_rounds == 0:
            state.ends_at(batch.after)
        with parts.publisher.pinned() as pin:
            pinned = _Pinned(pin, state)
            sampled = self._sample(parts, batch.prompts, step, should_stop, pinned)
            if not sampled.scores.mostly_errors:
                batch, sampled = self._refill(parts, batch, sampled, step, should_stop, pinned)
        return Ahead(batch, sampled)

    def _refuse_failing_graders(self, parts: Parts, sampled: SampledBatch, step: int) -> None:
        """Raise UserCodeError if more than half of the completions of a batch could not be graded.

        In this case, save a checkpoint before the error is raised.
        """
        if sampled.scores.mostly_errors:
            self._save(parts)
            said = "; ".join(f"{name}: {text}" for name, text in sampled.scores.first_errors.items())
            raise UserCodeError(
                f"more than half of the completions of step {step} could not be graded: {said}"
            )

    def _count(self, batch: Batch, sampled: SampledBatch) -> None:
        """Add the step, tokens, dropped prompts and errors of a trained batch to the run's state."""
        count_batch(self.state, batch, sampled)
        self.monitors.status.dropped_prompts += batch.dropped

    def _room(self) -> tuple[int, int, float, int]:
        """Return the values that limit the number of prompts of a step, for ``TrainingPrompts.batch``.

        They are the number of epochs, the number of rollouts of a prompt, the expected length of a completion
        in tokens, and the number of tokens of a step.
        """
        training = self.spec.training
        rollouts = self.spec.sampling.num_rollouts
        return training.epochs, rollouts, self.state.expected_completion, training.batch_size_tokens

    def _stop(self) -> Stop | None:
        """Return the current stop rules: the newest from the operator, else those of the configuration."""
        return self.reporter.stop if self.reporter.stop is not None else self.spec.stop

    def _total_steps(self, parts: Parts) -> int:
        """Return the estimated number of steps of the whole run, at most ``stop.maxSteps``.

        The estimate uses the mean completion length of the steps so far.
        """
        total = self.state.step + parts.train.steps_left(self.state.position, *self._room())
        stop = self._stop()
        limit = stop.max_steps if stop is not None else None
        return total if limit is None else min(total, max(limit, self.state.step))

    def _describe(self, parts: Parts) -> None:
        """Set the total number of steps and the number of sampler restarts in the status of the run."""
        self.monitors.status.samplers_restarted = parts.engine.restarts
        total = self._total_steps(parts)
        self.monitors.status.total_steps = total
        self.monitors.status.total_steps_estimated = total != self.state.step

    # --- before the first step, and held-out evaluation -------------------------------------------

    def _probe_sampler(self, parts: Parts) -> None:
        """Check before training that the sampler uses the adapters that it loads.

        From now on, this is also checked after each later load. Raises SamplerMismatch, ModelError.
        """
        dtype = model_dtype(self.config)
        probe = SamplerProbe(
            parts.policy, parts.engine, parts.followers, self.folder.adapters, dtype, self.fence.check
        )
        prompts = parts.train.first(1)
        if prompts:
            probe.before_training(prompts[0].token_ids, parts.sampling, self.should_stop)
        parts.publisher.probe = probe

    def _preflight(self, parts: Parts) -> None:
        """Sample and grade a few prompts before training, once per run, and report problems of the rewards.

        If training starts from an adapter, this adapter is first published to the sampler.

        If a grader fails on every completion, raise UserCodeError before the first step. The next attempt
        then checks the rewards again, because code and rows may have been corrected. With
        ``preflight: require``, any finding raises ConfigurationError.
        """
        if self.spec.model.adapter is not None and self.state.adapter_version == 0:
            parts.publisher.save(0)
            parts.publisher.load()
        if self.spec.preflight == "off":
            return
        found = preflight.saved(self.folder)
        if found is None and self.state.step > 0:
            log.warning("the findings of the preflight are lost; it is not repeated after the first step")
            return
        if found is None or (self.state.step == 0 and preflight.broken(found)):
            sampled = self._sample(parts, parts.train.first(preflight.PROMPTS), 0, self.should_stop)
            if parts.publisher.probe is not None:
                parts.publisher.probe.refuse_preflight(sampled, parts.update.filter)
            found = preflight.findings(sampled)
            self.fence.check()
            preflight.save(self.folder, found)
        preflight.warn(found)
        self.monitors.preflight(found)
        if self.state.step == 0:
            preflight.refuse_broken(found)
        if found and self.spec.preflight == "require":
            raise ConfigurationError("; ".join(f"{entry.parameter}: {entry.message}" for entry in found))

    def _evaluate_base(self, parts: Parts) -> RowScores | None:
        """Evaluate the starting policy on the held-out rows, once per run. Return its scores.

        Return None if the evaluation is off. After a resume, also publish the restored adapter to the
        sampler. Raises InputsChanged if an earlier attempt evaluated the starting policy on other rows.

        If an earlier attempt's evaluation is missing or cannot be read, evaluate the starting policy again,
        because a comparison with any other policy would be wrong.
        """
        base = None
        if not self.spec.evaluation.is_off:
            base = self._saved_evaluation(0)
            if base is None:
                self.monitors.stage("evaluatingBase")
                base = self._evaluate_start(parts)
            refuse_other_prompts(base, parts.heldout)
            self.monitors.status.evaluation = comparison(self.folder, self.state, base, None, self.seed)
        if self.state.adapter_version > 0:
            self._publish(parts)
        self._report(parts)
        return base

    def _evaluate_start(self, parts: Parts) -> RowScores:
        """Evaluate the policy from which training started, also if the current policy is another one."""
        if self.state.step == 0:
            return self._evaluate_current(parts)
        log.warning("the evaluation of the starting policy is missing, so it is evaluated again")
        started = time.monotonic()
        with parts.publisher.starting_policy():
            return self._evaluate(parts, 0, started)

    def _evaluate_if_due(self, parts: Parts, prefetch: Prefetch, base: RowScores | None) -> float | None:
        """Evaluate the policy if the step is a multiple of ``evaluation.everySteps``.

        ``base``: the scores of the starting policy. None: the evaluation is off.
        Return the mean held-out reward. None: no evaluation is due after this step.
        """
        every = self.spec.evaluation.every_steps
        if base is None or every is None or self.state.step % every:
            return None
        started = time.monotonic()
        with prefetch.paused():
            self.state.gpu_seconds += self.config.gpus * (time.monotonic() - started)
            scores = self._evaluate_current(parts)
        if not self._keep_best(parts, scores):
            self.state.evaluations_without_best += 1
        self.monitors.status.evaluation = comparison(self.folder, self.state, base, scores, self.seed)
        self._report(parts)
        return scores.mean_reward

    def _evaluate_tuned(self, parts: Parts, base: RowScores) -> None:
        """Evaluate the final policy on the held-out rows, and compare it with the starting policy's scores.

        ``base``: the scores of the starting policy.
        """
        self.monitors.stage("evaluatingTuned")
        tuned = self._saved_evaluation(self.state.step) or self._evaluate_current(parts)
        self._keep_best(parts, tuned)
        self.monitors.status.evaluation = comparison(self.folder, self.state, base, tuned, self.seed)

    def _evaluate_current(self, parts: Parts) -> RowScores:
        """Evaluate the current policy on the held-out rows. Save and return its scores."""
        started = time.monotonic()
        parts.publisher.load()
        return self._evaluate(parts, self.state.step, started)

    def _evaluate(self, parts: Parts, step: int, started: float) -> RowScores:
        """Evaluate the policy that the sampler uses, and count the GPU time. Save and return its scores.

        - ``step``: the step after which this policy was or is the current one. 0: the starting policy.
        - ``started``: the value of ``time.monotonic()`` before the sampler loaded the policy.
        """
        scores = evaluate(
            parts.heldout, self.spec, parts.sampling, self.seed, step,
            parts.generate, parts.scorer, self.should_stop,
        )  # fmt: skip
        self.state.gpu_seconds += self.config.gpus * (time.monotonic() - started)
        self.fence.check()
        self.monitors.evaluation(scores)
        return scores

    def _saved_evaluation(self, step: int) -> RowScores | None:
        """Return the evaluation of a step that this or an earlier attempt saved, or None if none is saved."""
        return RowScores.read(self.folder, step)

    def _keep_best(self, parts: Parts, scores: RowScores) -> bool:
        """If these scores have the highest held-out reward so far, save a checkpoint as the best one.

        Return whether this is so.
        """
        if not is_best(self.state, scores.mean_reward):
            return False
        self.state.best_reward, self.state.best_step = scores.mean_reward, self.state.step
        self.state.evaluations_without_best = 0
        self._save(parts)
        return True

    # --- the run's folder and status --------------------------------------------------------------

    def _resume(self, parts: Parts) -> None:
        """Restore the newest checkpoint, if the run has one, and begin the records of this attempt."""
        state = parts.checkpoints.load_latest(parts.policy, parts.optimizer, parts.schedule)
        if state is not None:
            self.state = state
            self._name_checkpoints(self.folder.checkpoint_of(state.step))
        self.monitors.status.dropped_prompts = parts.dropped_prompts + self.state.dropped_prompts
        self.fence.check()  # loading takes long: the files of a newer attempt must not be removed
        self.monitors.started()
        self.monitors.status.total_steps = self._total_steps(parts)

    def _save(self, parts: Parts) -> None:
        """Write a checkpoint of the last complete step. Before the first step, do nothing."""
        if self.state.step == 0:
            return  # nothing is trained yet, so a new start gives the same result
        steps = [*self.folder.steps_with_checkpoint(), self.state.step]
        also = canaries.kept(self._stop(), self._curve(), self._canaries, steps)
        self._name_checkpoints(
            parts.checkpoints.save(self.state, parts.policy, parts.optimizer, parts.schedule, also)
        )

    def _name_checkpoints(self, newest: Path) -> None:
        """Write the paths of the newest and the best checkpoint into the status."""
        named = {"checkpoint": str(newest)}
        if self.state.best_step:
            named["best_checkpoint"] = str(self.folder.checkpoint_of(self.state.best_step))
        self.monitors.status.add_output(**named)

    def _dresser(self, base: Path) -> Callable[[Path], None]:
        """Return a function that adds the base model's name and a model card to a saved adapter's folder.

        ``base``: the folder of the base model, which may have its license and its hub commit.
        """
        model = self.spec.model
        revision, licence = hub_commit(base) or model.revision, licence_of(base)

        def dress_adapter(adapter: Path) -> None:
            curve = [
                (record.step, record.reward) for record in self.monitors.records if record.reward is not None
            ]
            evaluation = self.monitors.status.evaluation
            dress(adapter, Card(self.config, self.state.step, revision, licence, curve, evaluation))

        return dress_adapter

    def _finish(self, parts: Parts) -> None:
        """Write the final adapter into the run's folder, and remove downloaded or unpacked rows."""
        self.fence.check()
        shutil.rmtree(self.folder.adapter, ignore_errors=True)
        with files.new_folder(self.folder.adapter, self.fence.check) as unfinished:
            parts.policy.save_adapter(unfinished)
        self.monitors.status.add_output(adapter=str(self.folder.adapter))
        discard(self.folder.data)
        self.monitors.status.total_steps = self.state.step
        self.monitors.status.total_steps_estimated = False
        self.monitors.stage("finished")

    def _report(self, parts: Parts) -> None:
        self.monitors.status.samplers_restarted = parts.engine.restarts
        self.monitors.report()
