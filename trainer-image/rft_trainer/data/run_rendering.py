"""How a run renders its rows: the same in each of its attempts, whatever the day and the release."""

from datetime import datetime
from typing import Self

from rft_run.errors import VolumeError
from rft_run.folder import RunFolder
from rft_run.record import Record
from rft_trainer import files


class Rendering(Record):
    """What ``rendering.json`` of a run's folder says."""

    moment: str | None = None
    """The time that a chat template which prints the date sees; None: the time at which it renders."""
    as_before: bool = False
    """Whether the run was begun by a release that gave messages to the template as they were written."""

    def date(self, form: str) -> str:
        """Return the moment in a form of ``strftime``."""
        moment = datetime.fromisoformat(self.moment) if self.moment is not None else datetime.now()
        return moment.strftime(form)

    @classmethod
    def of_run(cls, folder: RunFolder) -> Self:
        """Return the rendering of a run, decided by its first attempt. Raises VolumeError."""
        try:
            return cls.from_line(folder.rendering.read_bytes())
        except FileNotFoundError:
            begun = bool(folder.steps_with_checkpoint() or folder.evaluated_steps())
        except (OSError, ValueError) as error:
            raise VolumeError(f"{folder.rendering}: cannot be read: {error}") from error
        found = cls(moment=datetime.now().isoformat(timespec="seconds"), as_before=begun)
        files.write_bytes(folder.rendering, found.as_line().encode())
        return found


CURRENT = Rendering()
