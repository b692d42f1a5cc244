"""Writes the metrics and the rollouts of each step into the run's folder."""

import logging
import shutil
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
    """The file ``metrics.jsonl`` in the run's folder, with a record of the metrics of each training step."""

    def __init__(self, folder: RunFolder, last_step: int) -> None:
        """Read the records of earlier attempts. Remove records of steps after ``last_step`` from the file,
        because the run repeats these steps.

        Lines that cannot be read are removed too, with a warning. A copy of the file as it was is kept beside
        it. ``last_step``: the step of the checkpoint from which the run continues. Raises VolumeError.
        """
        self._path = folder.metrics
        broken: list[int] = []
        try:
            found = read_steps(self._path, broken)
        except (OSError, UnreadableSteps) as error:
            raise VolumeError(f"{self._path}: {error}") from error
        if broken:
            kept = self._path.with_name(f"{self._path.name}.unreadable")
            with files.new_file(kept) as unfinished, files.volume_errors(kept):
                shutil.copyfile(self._path, unfinished)
            said = "%s: line %s cannot be read and is removed; the file as it was is now %s"
            log.warning(said, self._path, ", ".join(map(str, broken[:10])), kept.name)
        self.records = [record for record in found if record.step <= last_step]
        absent = sorted({*range(1, last_step + 1)} - {record.step for record in self.records})
        if absent:
            said = "%s has no record of %d of the %d steps so far, e.g. of step %d: the curve lacks them"
            log.warning(said, self._path, len(absent), last_step, absent[0])
        files.write_bytes(self._path, as_lines(self.records))

    def append(self, record: StepRecord) -> None:
        """Append the record of a training step to the file. Raises VolumeError."""
        self.records.append(record)
        try:
            with run_files.writable(self._path) as file:
                file.write(record.as_line().encode())
        except (OSError, run_files.UnreadableFile) as error:
            raise VolumeError(f"{self._path}: {error}") from error


def save_rollouts(folder: RunFolder, step: int, groups: Sequence[Group]) -> None:
    """Write all rollouts of a step, also of dropped groups, into the run's folder. Raises VolumeError."""
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
    """Return a rollout's messages before the model's first turn, with the text of the environment's reset."""
    episode = rollout.generated.episode
    given = group.prompt.row.messages if episode is None else episode.messages[: episode.given]
    return [dict(message) for message in given]


def _of_episode(episode: Episode | None) -> dict[str, Any]:
    """Return the fields that only a rollout of several turns has in its record: ``turns`` and ``limit``.

    Return {} if ``episode`` is None, because the rollout is a single answer.
    """
    if episode is None:
        return {}
    return {"turns": [dict(message) for message in episode.messages[episode.given :]], "limit": episode.limit}


def remove_later(folder: RunFolder, last_step: int) -> None:
    """Remove unfinished files from the run's folder. Also remove rollouts and evaluations of later steps.

    Later steps are those after ``last_step``, the step of the checkpoint from which the run continues. They
    are repeated, and their policies may be other ones. Raises VolumeError.
    """
    for written in (folder.path, folder.rollouts, folder.adapters, folder.evaluations):
        with files.volume_errors(written):
            atomic.remove_leftovers(written)
    later = [folder.rollouts_of(step) for step in folder.steps_with_rollouts() if step > last_step]
    later += [folder.evaluation_of(step) for step in folder.evaluated_steps() if step > last_step]
    for file in later:
        with files.volume_errors(file):
            file.unlink(missing_ok=True)
