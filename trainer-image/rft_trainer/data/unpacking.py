"""Converts a compressed or CSV dataset into a file of JSON lines in the run's folder."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from rft_run import run_files
from rft_run.errors import Preempted
from rft_run.rows import RowLayout, is_packed, json_lines
from rft_trainer import files
from rft_trainer.data.lines import identity_of, recorded
from rft_trainer.data.source import readable

log = logging.getLogger(__name__)

_LINES_BETWEEN_LOOKS = 10_000


def as_json_lines(file: Path, layout: RowLayout, folder: Path, should_stop: Callable[[], bool]) -> Path:
    """Return a file of JSON lines with the rows of ``file``. Compressed and CSV files are converted.

    It is ``file`` itself, or the converted copy in ``folder``. An existing copy is used again if ``file`` has
    not changed.

    Raises:
        DataError: the file does not exist, or does not have the format of ``layout``.
        TrainerError: the file cannot be read for another reason.
        VolumeError: the copy cannot be written.
        Preempted: the run should stop.
    """
    with readable(file), file.open("rb") as stream:
        packed = is_packed(stream.read(2), layout)
        stream.seek(0)
        lines = json_lines(stream, layout, str(file))
        if not packed:
            return file
        target, about = folder / "unpacked.jsonl", folder / "unpacked.json"
        made_of = identity_of(file) | {"layout": asdict(layout)}
        before = recorded(about) if run_files.is_own(target) else None
        if before != made_of:
            if before is not None:
                log.warning("%s changed since its last conversion, so it is converted again", file)
            files.write_pieces(target, _watched(lines, file, should_stop))
            files.write_json(about, made_of)
        return target


def _watched(lines: Iterator[bytes], file: Path, should_stop: Callable[[], bool]) -> Iterator[bytes]:
    with readable(file):
        for number, line in enumerate(lines):
            if number % _LINES_BETWEEN_LOOKS == 0 and should_stop():
                raise Preempted("asked to stop while the dataset was unpacked")
            yield line
