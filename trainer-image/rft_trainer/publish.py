"""Hands versions of the adapter from the trainer to the sampler."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass

from rft_run.folder import RunFolder
from rft_trainer.learn.policy import Policy, version_name
from rft_trainer.probe import SamplerProbe
from rft_trainer.rollout.engine import AdapterVersion, RolloutEngine


@dataclass(frozen=True)
class _Saved:
    """A version in the run's folder."""

    version: int
    adapter: AdapterVersion
    answers: list[float] | None
    """The trainer's log-probs of the probe's text with this version. None: there is no check."""


class Publisher:
    """Publishes versions of the adapter in two parts, which may run in different threads.

    The trainer saves a version; the sampler's thread loads the newest one before its next batch. So an update
    never waits for a batch that is being sampled, and a batch is sampled by one version. At each moment only
    one thread uses the sampler.
    """

    def __init__(
        self,
        policy: Policy,
        engine: RolloutEngine,
        folder: RunFolder,
        check: Callable[[], None],
        ahead: int,
    ) -> None:
        """``check`` raises Fenced where a newer attempt owns the folder. ``ahead``: batches sampled ahead."""
        self.probe: SamplerProbe | None = None
        """Checks after each load that the sampler uses the version. None: there is no check."""
        self._policy, self._engine, self._folder, self._check = policy, engine, folder, check
        # A sampler that is restarted loads its version again. It is at most ``ahead`` versions behind.
        self._kept = 1 + max(1, ahead)
        self._newest: _Saved | None = None
        self._used: _Saved | None = None

    def save(self, version: int) -> None:
        """Save the policy's adapter as a numbered version, and remove versions that no one loads any more.

        Raises VolumeError, Fenced.
        """
        adapter = self._policy.save_version(self._folder.adapters, version, self._check)
        answers = self.probe.trainer_answers() if self.probe is not None else None
        self._newest = _Saved(version, adapter, answers)
        kept = {version_name(number) for number in range(version - self._kept + 1, version + 1)}
        for other in self._folder.adapters.glob("v*"):
            if other.name not in kept:  # older, or of steps that a resumed run repeats
                shutil.rmtree(other, ignore_errors=True)

    def load(self) -> int:
        """Let the sampler use the newest version, if it does not yet. Return the version that it uses.

        It is 0 before the first version. Raises SamplerError, SamplerMismatch, Preempted.
        """
        newest = self._newest
        if newest is not None and newest is not self._used:
            self._engine.use_adapter(newest.adapter)
            self._used = newest
            if self.probe is not None and newest.answers is not None:
                self.probe.after_load(newest.version, newest.answers)
        return self._used.version if self._used is not None else 0
