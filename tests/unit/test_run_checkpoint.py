"""An incomplete checkpoint is not used. Fields of its state that a newer release wrote are kept."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rft_run.checkpoint import checkpoint_problem, newest_usable
from rft_run.folder import RunFolder
from rft_run.state import Position, RunState
from tests.unit.checkpoint_support import as_old_release, write_checkpoint


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def of_another_step(file: Path) -> None:
    file.write_text(json.dumps(RunState(step=3).to_json()))


def without_its_step(file: Path) -> None:
    file.write_text(json.dumps({"position": {"epoch": 1, "offset": 0}}))


def a_list(file: Path) -> None:
    file.write_text("[]")


def longer(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def a_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def a_link(file: Path) -> None:
    file.rename(file.with_name("moved"))
    file.symlink_to("moved")


FILES = (
    "state.json", "training.safetensors", "training.json", "training.pt",
    "adapter/adapter_config.json", "adapter/adapter_model.safetensors",
)  # fmt: skip
DAMAGES: list[tuple[str, Callable[[Path], object]]] = [
    *((name, damage) for name in FILES for damage in (cut, empty, a_folder, a_fifo, a_link)),
    *((name, Path.unlink) for name in FILES if name != "training.pt"),
    *(("state.json", damage) for damage in (of_another_step, without_its_step, a_list)),
    ("adapter/adapter_model.safetensors", longer),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_a_damaged_file_of_a_checkpoint_is_named_and_the_one_before_is_the_newest(
    tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    folder = RunFolder(tmp_path)
    for step in (2, 4):
        write_checkpoint(folder, step)
    if name == "training.pt":
        as_old_release(folder.checkpoint_of(4))
    assert newest_usable(folder) == 4
    damage(folder.checkpoint_of(4) / name)
    problem = checkpoint_problem(folder, 4)
    assert problem is not None
    assert str(folder.checkpoint_of(4) / name) in problem
    assert newest_usable(folder) == 2


def test_a_file_in_the_place_of_a_checkpoint_is_none(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    folder.checkpoint_of(4).write_bytes(b"")
    assert newest_usable(folder) is None
    assert "is missing" in str(checkpoint_problem(folder, 4))


def test_fields_of_a_newer_release_are_kept_and_written_again() -> None:
    written = {**RunState(step=4).to_json(), "novelty": {"a": 1}}
    written["position"] = {"epoch": 2, "offset": 3, "refills": 5}
    state = RunState.from_json(written)
    assert (state.step, state.position) == (4, Position(2, 3))
    assert state.to_json()["novelty"] == {"a": 1}


def test_a_state_of_an_older_release_is_read_with_defaults() -> None:
    state = RunState.from_json({"step": 4, "position": {"epoch": 1, "offset": 2}})
    assert state == RunState(step=4, position=Position(1, 2))
