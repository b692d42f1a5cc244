"""Saves the date and the rules with which a run renders its rows into prompts.

So all attempts (starts of the trainer) render the same prompts, even on another day or with another release.
"""

import logging
from datetime import datetime
from typing import Self

from rft_run import run_files
from rft_run.errors import VolumeError
from rft_run.folder import RunFolder, tensors_of
from rft_run.record import Record
from rft_trainer import files

log = logging.getLogger(__name__)


class Rendering(Record):
    """The content of ``rendering.json`` in a run's folder: how the run renders rows into prompts."""

    moment: str | None = None
    """The time (ISO 8601) that a chat template gets if it prints the date. None: the current time."""
    as_before: bool = False
    """Whether the run began with an old release, which passed messages to the chat template unchanged."""

    def date(self, form: str) -> str:
        """Return the run's date for chat templates as text: ``moment``, or the current time if it is None.

        ``form``: the format of the text, as for ``strftime``.
        """
        moment = datetime.fromisoformat(self.moment) if self.moment is not None else datetime.now()
        return moment.strftime(form)

    @classmethod
    def of_run(cls, folder: RunFolder) -> Self:
        """Return the content of ``rendering.json`` in a run's folder.

        If the file is missing, write it first, with the current time. If another release than an old one has
        written results into the folder, the file was lost, and a warning is logged. Raises VolumeError if the
        file cannot be read or written.
        """
        try:
            return cls.from_line(run_files.content(folder.rendering))
        except FileNotFoundError:
            begun = bool(folder.steps_with_checkpoint() or folder.evaluated_steps())
        except (OSError, ValueError) as error:
            raise VolumeError(f"{folder.rendering}: cannot be read: {error}") from error
        lost = begun and not _is_of_old_release(folder)
        if lost:
            said = "%s is lost: a chat template that prints the date gets another date than before"
            log.warning(said, folder.rendering)
        found = cls(moment=datetime.now().isoformat(timespec="seconds"), as_before=begun and not lost)
        files.write_bytes(folder.rendering, found.as_line().encode())
        return found


def _is_of_old_release(folder: RunFolder) -> bool:
    """Return whether a release without ``rendering.json`` began the run. It wrote no fingerprint, and its
    checkpoints have another format.
    """
    checkpoints = [folder.checkpoint_of(step) for step in folder.steps_with_checkpoint()]
    return not folder.fingerprint.exists() and not any(tensors_of(one).exists() for one in checkpoints)


CURRENT = Rendering()
