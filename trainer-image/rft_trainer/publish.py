"""Hands versions of the adapter from the trainer to the sampler."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rft_run.folder import RunFolder
from rft_trainer.learn.policy import Policy, version_name
from rft_trainer.probe import SamplerProbe
from rft_trainer.rollout.engine import BASE_NAME, AdapterVersion, RolloutEngine


@dataclass(frozen=True)
class _Saved:
    """A version of the adapter that is saved in the run's folder."""

    version: int
    adapter: AdapterVersion
    answers: list[float] | None
    """The trainer's log-probs of the probe's fixed text with this version, in nats. None: the sampler is not
    checked.
    """


@dataclass(frozen=True)
class Pin:
    """The version of the adapter that samples a batch: its number, and its name in the sampler."""

    version: int
    adapter: str


class Publisher:
    """Publishes versions of the adapter in two parts, which may run in different threads.

    The trainer calls ``save``. Before a batch is sampled, ``load`` loads the newest saved version. So an
    update never waits for a batch that is being sampled. If a version is ``pinned``, the sampler keeps it
    when it loads newer ones. So each batch is sampled by one version, also while other batches begin.
    """

    def __init__(
        self,
        policy: Policy,
        engine: RolloutEngine,
        folder: RunFolder,
        check: Callable[[], None],
        ahead: int,
    ) -> None:
        """``check`` raises Fenced if a newer attempt owns the folder.

        ``ahead``: number of batches that are sampled ahead.
        """
        self.probe: SamplerProbe | None = None
        """Checks after each load that the sampler uses the loaded version. None: the sampler is not
        checked.
        """
        self._policy, self._engine, self._folder, self._check = policy, engine, folder, check
        # A restarted sampler loads its version again, at most ``ahead`` versions older than the newest one.
        self._kept = 1 + max(1, ahead)
        self._newest: _Saved | None = None
        self._used: _Saved | None = None
        self._loading = threading.Lock()
        """Locked while a version is loaded, so that batches begin one after another."""
        self._pins: list[_Saved | None] = []
        """The version of each open ``with`` block of ``pinned``. None: the base model without an adapter."""
        self._reloaded: set[str] = set()
        """Names of the versions that a restarted sampler loads, also of batches that have ended."""
        self._counting = threading.Lock()
        """Locked while ``_pins`` or ``_reloaded`` changes.

        It is not the lock of loads, so that the end of a batch does not wait for a load.
        """

    def save(self, version: int) -> None:
        """Save the policy's adapter as a numbered version, and remove versions that are not needed any more.

        A version is not needed if the sampler will not load it, not even after a restart. Raises VolumeError,
        and Fenced if a newer attempt owns the folder.
        """
        adapter = self._policy.save_version(self._folder.adapters, version, self._check)
        answers = self.probe.trainer_answers() if self.probe is not None else None
        self._newest = _Saved(version, adapter, answers)
        kept = {version_name(number) for number in range(version - self._kept + 1, version + 1)}
        with self._counting:
            kept |= self._reloaded
        for other in self._folder.adapters.glob("v*"):
            if other.name not in kept:  # too old, or of a step that a resumed run repeats
                shutil.rmtree(other, ignore_errors=True)

    def load(self) -> int:
        """Let the sampler load the newest saved version, unless the sampler uses it already.

        Return the number of the version that the sampler now uses. It is 0 before the first version. Raises
        SamplerError, SamplerMismatch, Preempted.
        """
        with self._loading:
            return self._load()

    @contextmanager
    def pinned(self) -> Iterator[Pin]:
        """Load the newest saved version as ``load`` does. The sampler keeps it in the ``with`` block.

        The requests in the block must name the pin's adapter, because other threads may load newer versions.
        """
        with self._loading:
            version = self._load()
            used = self._used
            with self._counting:
                self._pins.append(used)
        try:
            yield Pin(version, used.adapter.name if used is not None else BASE_NAME)
        finally:
            with self._counting:
                self._pins.remove(used)

    def _load(self) -> int:
        newest = self._newest
        if newest is not None and newest is not self._used:
            with self._counting:
                pins = list(self._pins)
                kept = {one.version: one.adapter for one in pins if one is not None}
                wanted = {newest.adapter.name, *(one.name for one in kept.values())}
                self._reloaded |= wanted  # a restart during the call may load old or new adapters
            self._engine.use_adapter(newest.adapter, list(kept.values()))
            self._used = newest
            with self._counting:
                self._reloaded = wanted
            if self.probe is not None and newest.answers is not None:
                self.probe.after_load(newest.version, newest.answers, alone=not pins)
        return self._used.version if self._used is not None else 0
