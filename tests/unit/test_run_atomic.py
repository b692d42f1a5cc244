"""Files that must survive a crash are either complete or absent. Only ``rft_run.atomic`` writes them."""

import ast
import os
from pathlib import Path

import pytest

from rft_run import atomic
from tests.unit.program_support import programs


def test_a_file_is_synced_before_and_its_folder_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "run" / "state.json"
    flushed: list[tuple[bool, bool]] = []
    flush = os.fsync

    def recording(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        flushed.append((path.is_dir(), target.exists()))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    atomic.write_text(target, "{}")
    assert flushed == [(False, False), (True, True)]
    assert target.read_text() == "{}"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "status.yaml"
    atomic.write_text(target, "old")

    def full(_descriptor: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        atomic.write_text(target, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["status.yaml"]
    assert target.read_text() == "old"


def test_a_folder_appears_when_its_block_succeeds_and_not_otherwise(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    with pytest.raises(FileNotFoundError), atomic.new_folder(target) as unfinished:
        (unfinished / "weights").rename(unfinished / "missing")
    assert not list(tmp_path.iterdir())
    with atomic.new_folder(target) as unfinished:
        (unfinished / "weights").write_text("whole")
        assert not target.exists()
    assert (target / "weights").read_text() == "whole"


@pytest.mark.parametrize("folder", [True, False], ids=["a folder", "a file"])
def test_a_folder_replaces_an_existing_one_only_if_requested(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "model"
    if folder:
        target.mkdir()
        (target / "old").touch()
    else:
        target.touch()
    with pytest.raises(OSError), atomic.new_folder(target):  # noqa: PT011 - its class depends on the target
        pass
    with atomic.new_folder(target, replace=True) as unfinished:
        (unfinished / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("folder", [True, False], ids=["a folder", "a file"])
def test_what_a_killed_replacement_left_is_removed_by_the_next(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "model[1]"
    target.mkdir()
    left = tmp_path / ".model[1].0123abcd.old"
    left.mkdir() if folder else left.touch()
    kept = tmp_path / ".model1.0123abcd.old"
    kept.touch()
    with atomic.new_folder(target, replace=True):
        pass
    assert sorted(tmp_path.iterdir()) == sorted([target, kept])


def test_a_replacement_that_fails_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    rename = Path.rename

    def refusing(self: Path, new: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError("no space")
        return rename(self, new)

    monkeypatch.setattr(Path, "rename", refusing)
    with pytest.raises(OSError, match="no space"), atomic.new_folder(target, replace=True):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "old"]


def test_temporary_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    atomic.temporary(tmp_path / "state.json").touch()
    atomic.temporary(tmp_path / "adapter").mkdir()
    (tmp_path / ".kept").touch()
    atomic.remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".kept"]


def _renames(tree: ast.Module) -> list[int]:
    """Return the numbers of the lines that rename a file, such as ``a.rename(b)`` or ``os.replace(a, b)``."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    found = []
    for call in calls:
        if not isinstance(call.func, ast.Attribute):
            continue
        of_os = isinstance(call.func.value, ast.Name) and call.func.value.id == "os"
        replaces = call.func.attr == "replace" and (of_os or (len(call.args) == 1 and not call.keywords))
        if call.func.attr in ("rename", "renames") or replaces:
            found.append(call.lineno)
    return found


def test_no_other_module_renames_files() -> None:
    parts = ("operator/", "trainer-image/")
    found = [path for path, tree in programs().items() if path.startswith(parts) and _renames(tree)]
    assert found == ["operator/rft_run/atomic.py"]
