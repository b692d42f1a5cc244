"""Writes the metrics and the rollouts of each step into the run's folder."""

import logging
from collections.abc import Sequence
from typing import Any

from rft_run import atomic, run_files
from rft_run.errors import VolumeError
from rft_run.folder import RunFolder
from rft_run.rollouts import RolloutRecord, as_bytes, compressed
from rft_run.steps import StepRecord, UnreadableSteps, as_lines, read_steps
from rft_trainer import files
from rft_trainer.rollout.groups import Group, Rollout
from rft_trainer.rollout.segments import Episode

log = logging.getLogger(__name__)


class StepsFile:
    """Writes ``metrics.jsonl``. A resumed run removes the records of the steps after its checkpoint."""

    def __init__(self, folder: RunFolder, last_step: int) -> None:
        """Keep the records up to the step ``last_step``, and remove later ones. Raises VolumeError."""
        self._path = folder.metrics
        try:
            found = read_steps(self._path, until_broken=True)
        except (OSError, UnreadableSteps) as error:
            raise VolumeError(f"{self._path}: {error}") from error
        self.records = [record for record in found if record.step <= last_step]
        files.write_bytes(self._path, as_lines(self.records))

    def append(self, record: StepRecord) -> None:
        """Append the record of a step. Raises VolumeError."""
        self.records.append(record)
        try:
            with run_files.writable(self._path) as file:
                file.write(record.as_line().encode())
        except (OSError, run_files.UnreadableFile) as error:
            raise VolumeError(f"{self._path}: {error}") from error


def save_rollouts(folder: RunFolder, step: int, groups: Sequence[Group]) -> None:
    """Write all rollouts of a step, including those of dropped groups. Raises VolumeError."""
    records = [record for group in groups for record in _records(step, group)]
    content = as_bytes(records)
    if len(content) > run_files.ROLLOUTS_BYTES:
        log.warning("the rollouts of step %d have %d bytes, too many for `rft samples`", step, len(content))
    files.write_bytes(folder.rollouts_of(step), compressed(content))


def _records(step: int, group: Group) -> list[RolloutRecord]:
    advantages = dict(zip(map(id, group.accepted), group.advantages, strict=True))
    return [
        RolloutRecord(
            step=step,
            line=group.prompt.row.line,
            messages=_given(group, rollout),
            fields=group.prompt.row.fields,
            completion=rollout.generated.text,
            reward=rollout.score.reward,
            graders=rollout.score.per_grader,
            errors=rollout.score.errors,
            printed=rollout.score.printed,
            overlong_penalty=rollout.penalty,
            advantage=advantages.get(id(rollout)),
            finish_reason=rollout.generated.finish_reason,
            tokens=len(rollout.generated.token_ids),
            **_of_episode(rollout.generated.episode),
        )
        for rollout in group.rollouts
    ]


def _given(group: Group, rollout: Rollout) -> list[dict[str, Any]]:
    """Return the messages before the model's first turn, including the text of an environment's ``reset``."""
    episode = rollout.generated.episode
    given = group.prompt.row.messages if episode is None else episode.messages[: episode.given]
    return [dict(message) for message in given]


def _of_episode(episode: Episode | None) -> dict[str, Any]:
    """Return the additional fields of a rollout's record if the rollout has several turns; else {}."""
    if episode is None:
        return {}
    return {"turns": [dict(message) for message in episode.messages[episode.given :]], "limit": episode.limit}


def remove_later(folder: RunFolder, last_step: int) -> None:
    """Remove unfinished files, and the rollouts of steps after ``last_step``: the run repeats these steps."""
    for written in (folder.path, folder.rollouts, folder.adapters, folder.evaluations):
        atomic.remove_leftovers(written)
    for step in folder.steps_with_rollouts():
        if step > last_step:
            folder.rollouts_of(step).unlink()
