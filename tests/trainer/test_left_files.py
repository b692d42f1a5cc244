"""A FIFO, a link or a huge file has the name and place of one of the run's files.

The trainer replaces or refuses this file.
"""

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rft_run import run_files
from rft_run.errors import DataError, Fenced, TrainerError, VolumeError
from rft_run.folder import RunFolder
from rft_run.rows import RowLayout
from rft_run.steps import StepRecord
from rft_trainer import preflight
from rft_trainer.checkpoint import Fence
from rft_trainer.data.lines import Lines, index_lines
from rft_trainer.data.run_rendering import Rendering
from rft_trainer.data.source import local_file
from rft_trainer.data.unpacking import as_json_lines
from rft_trainer.data.whole import load_rows
from rft_trainer.evaluate import RowScores
from rft_trainer.inputs import begun_with_commit
from rft_trainer.monitors.local_status import LocalStatus
from rft_trainer.monitors.records import StepsFile
from tests.trainer.loop_support import config

pytestmark = pytest.mark.timeout(30)


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_link(path: Path) -> None:
    path.symlink_to(path.with_name("precious"))
    path.with_name("precious").write_text("mine\n")


def deep(path: Path) -> None:
    path.write_text("[" * 100_000)


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 35)  # a sparse file, which takes no space on the disk


READS: list[tuple[str, Callable[[RunFolder], Any]]] = [
    ("attempt.json", Fence),
    ("evaluation/step-000001.json", lambda run: RowScores.read(run, 1)),
    ("preflight.json", preflight.saved),
    ("status.yaml", lambda run: LocalStatus(config(run.path / "model", run.path))),
    ("rendering.json", Rendering.of_run),
    ("metrics.jsonl", lambda run: StepsFile(run, 3)),
    ("fingerprint.json", begun_with_commit),
]


@pytest.mark.parametrize("make", [a_fifo, a_link, deep, huge])
@pytest.mark.parametrize(("name", "read"), READS)
def test_another_thing_in_place_of_a_file_is_replaced_or_an_error_of_the_run(
    tmp_path: Path, name: str, read: Callable[[RunFolder], Any], make: Callable[[Path], None]
) -> None:
    folder = RunFolder(tmp_path / "run")
    file = folder.path / name
    file.parent.mkdir(parents=True)
    folder.checkpoint_of(1).mkdir(parents=True)  # a run with a checkpoint has begun
    make(file)
    said = None
    try:
        read(folder)
    except TrainerError as error:
        said = str(error)
    assert said is None or str(file) in said
    if make is a_link:
        assert file.with_name("precious").read_text() == "mine\n"


def test_a_fence_that_became_a_link_is_an_error_of_the_volume(tmp_path: Path) -> None:
    fence = Fence(RunFolder(tmp_path))
    (tmp_path / "attempt.json").rename(tmp_path / "precious")
    (tmp_path / "attempt.json").symlink_to("precious")
    with pytest.raises(VolumeError, match=r"attempt.json: is a symbolic link"):
        fence.check()
    (tmp_path / "attempt.json").unlink()
    (tmp_path / "attempt.json").write_text('{"number": 9, "id": "other"}')
    with pytest.raises(Fenced, match="attempt 9 replaced attempt 1"):
        fence.check()


def test_a_step_is_not_appended_through_a_link(tmp_path: Path) -> None:
    steps = StepsFile(RunFolder(tmp_path), 3)
    (tmp_path / "metrics.jsonl").unlink()
    a_link(tmp_path / "metrics.jsonl")
    with pytest.raises(VolumeError, match=r"metrics.jsonl: is a symbolic link"):
        steps.append(StepRecord(step=1))
    assert (tmp_path / "precious").read_text() == "mine\n"


def test_rows_that_are_a_fifo_or_a_device_are_refused(tmp_path: Path) -> None:
    a_fifo(tmp_path / "rows.jsonl")
    for file, kind in ((tmp_path / "rows.jsonl", "a FIFO"), (Path("/dev/zero"), "a device")):
        for read in (
            load_rows,
            lambda path: index_lines(path, tmp_path / "index"),
            lambda path: as_json_lines(path, RowLayout(), tmp_path, lambda: False),
        ):
            with pytest.raises(DataError, match=f"{file}: is {kind}"):
                read(file)


def test_rows_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "rows.jsonl").symlink_to("real.jsonl")
    assert len(load_rows(tmp_path / "rows.jsonl")) == 1


def test_a_row_that_never_ends_is_refused_before_it_is_read(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    with rows.open("wb") as file:
        file.write(b'{"prompt": "a"}\n')
        file.truncate(run_files.LINE_BYTES + 100)
    assert index_lines(rows, tmp_path / "rows.index") is False
    lines = Lines(rows, tmp_path / "rows.index")
    assert lines[1] == b'{"prompt": "a"}\n'
    with pytest.raises(DataError, match=r"line 2: .*rows.jsonl: is longer than 64 MiB"):
        lines[2]
    lines.close()


def test_a_small_dataset_does_not_fill_the_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_files, "UNPACKED_BYTES", 1 << 20)
    rows = tmp_path / "rows.jsonl.gz"
    rows.write_bytes(
        gzip.compress(b'{"prompt": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}\n' * 500_000)
    )
    with pytest.raises(DataError, match=r"rows.jsonl.gz: has more than"):
        as_json_lines(rows, RowLayout(), tmp_path / "data", lambda: False)
    assert not list((tmp_path / "data").iterdir())


def test_a_link_in_place_of_the_copy_of_a_remote_dataset_is_not_followed(tmp_path: Path) -> None:
    import fsspec  # type: ignore[import-untyped]

    with fsspec.open("memory://rows.jsonl", "wb") as file:
        file.write(b'{"prompt": "remote"}\n')
    data = tmp_path / "data"
    first = local_file("memory://rows.jsonl", data, lambda: False)
    first.unlink()
    a_link(first)
    again = local_file("memory://rows.jsonl", data, lambda: False)
    assert (again.is_symlink(), again.read_text()) == (False, '{"prompt": "remote"}\n')
    assert first.with_name("precious").read_text() == "mine\n"
