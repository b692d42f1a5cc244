"""Passes each new version of the trained adapter from the trainer to the sampler, as files."""

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
    """A numbered version of the adapter that is saved in the run's folder, for the sampler."""

    version: int
    adapter: AdapterVersion
    answers: list[float] | None
    """The trainer's log-probs of a fixed text with this version, in nats. The sampler's are compared with
    them. None: there is no such check.
    """


@dataclass(frozen=True)
class Pin:
    """The version of the adapter that samples one batch. The sampler keeps it until the batch ends.

    ``adapter`` is the name of the version in requests to the sampler.
    """

    version: int
    adapter: str


class Publisher:
    """Passes versions of the adapter from the trainer to the sampler, through files in the run's folder.

    After an update the trainer calls ``save``. Before a batch is sampled, ``load`` lets the sampler load the
    newest saved version. The two may run in different threads, so an update never waits for a batch that is
    being sampled. If a version is ``pinned``, the sampler keeps it when it loads newer versions. So each
    batch is sampled by one version, also while other batches begin.
    """

    def __init__(
        self,
        policy: Policy,
        engine: RolloutEngine,
        folder: RunFolder,
        check: Callable[[], None],
        ahead: int,
    ) -> None:
        """``check`` raises Fenced if a newer attempt owns the run's folder.

        ``ahead``: maximum number of batches that are sampled before their step begins.
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
        """Names of the versions that a sampler loads if it is restarted. Their files must not be removed."""
        self._counting = threading.Lock()
        """Locked while ``_pins`` or ``_reloaded`` changes.

        It is another lock than ``_loading``, so that the end of a batch does not wait for a load.
        """

    def save(self, version: int) -> None:
        """Save the policy's adapter as version number ``version``, and remove the files of old versions.

        The versions that the sampler may still load, also after a restart, are kept. Raises VolumeError, and
        Fenced if a newer attempt owns the folder.
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
        """Let the sampler load the newest saved version of the adapter, unless the sampler uses it already.

        Return the number of the version that the sampler now uses. 0: no version has been loaded. Raises
        SamplerError, SamplerMismatch if the sampler does not use the version, and Preempted.
        """
        with self._loading:
            return self._load()

    @contextmanager
    def pinned(self) -> Iterator[Pin]:
        """Let the sampler load the newest saved version, and keep it until the ``with`` block ends.

        The requests in the block must name the adapter of the yielded pin, because other threads may let the
        sampler load newer versions meanwhile.
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

    @contextmanager
    def starting_policy(self) -> Iterator[None]:
        """In the ``with`` block, let the sampler use the policy from which training started.

        After the block it uses the base model alone, until the next ``load``. Meanwhile no batch may be
        sampled. Raises the errors of ``save`` and ``load``.
        """
        with self._loading:
            start = self._policy.save_start(self._folder.adapters, self._check)
            self._engine.use_adapter(start)
            self._used = None
            try:
                yield
            finally:
                if start is not None:
                    self._engine.use_adapter(None)
                    shutil.rmtree(self._folder.adapters / start.name, ignore_errors=True)

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
