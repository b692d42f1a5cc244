"""Publishes a new version of the adapter to the sampler."""

import shutil
from collections.abc import Callable

from rft_run.folder import RunFolder
from rft_trainer.learn.policy import Policy
from rft_trainer.rollout.engine import RolloutEngine

KEPT = 2
"""Number of adapter versions to keep in the run's folder: the current one, and the one before."""


def publish_adapter(
    policy: Policy, engine: RolloutEngine, folder: RunFolder, version: int, check: Callable[[], None]
) -> None:
    """Save the policy's adapter as a numbered version, and make the sampler use it. Remove older versions.

    ``check`` raises Fenced if a newer attempt owns the folder. Raises VolumeError, SamplerError.
    """
    engine.use_adapter(policy.save_version(folder.adapters, version, check))
    for old in sorted(folder.adapters.glob("v*"))[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
