"""A checkpoint is complete or absent. Only the current attempt may write one."""

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rft_run.errors import Fenced, NoCheckpointReadable, VolumeError
from rft_run.folder import RunFolder
from rft_run.state import Position, RunState
from rft_trainer import files
from rft_trainer.checkpoint import Checkpoints, Fence
from rft_trainer.learn.optimizer import Schedule, make_optimizer


class TinyPolicy:
    """Takes the place of ``Policy``, with a single weight."""

    def __init__(self, value: float = 0.0) -> None:
        self.weight = torch.nn.Parameter(torch.tensor([value]))

    def save_adapter(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "adapter_config.json").write_text("{}")
        save_file({"weight": self.weight.detach()}, folder / "adapter_model.safetensors")

    def adapter_state(self) -> dict[str, torch.Tensor]:
        return {"weight": self.weight.detach().clone()}

    def load_adapter_state(self, state: dict[str, torch.Tensor]) -> None:
        self.weight.data.copy_(state["weight"])


def training() -> Any:
    return SimpleNamespace(learning_rate=0.1, weight_decay=0.0, warmup_steps=0, schedule="linear")


def parts(policy: TinyPolicy) -> tuple[torch.optim.Optimizer, Schedule]:
    optimizer = make_optimizer([policy.weight], training())
    return optimizer, Schedule(optimizer, training())


def step(policy: TinyPolicy, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    (policy.weight**2 + torch.randn(1) * policy.weight).sum().backward()
    optimizer.step()


def test_a_resumed_run_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    policy: Any = TinyPolicy(1.0)
    optimizer, schedule = parts(policy)
    checkpoints = Checkpoints(RunFolder(tmp_path), 3, Fence(RunFolder(tmp_path)))
    torch.manual_seed(0)
    schedule.set(5, 10)
    step(policy, optimizer)
    state = RunState(step=5, position=Position(2, 7), expected_completion=3.5, grader_errors={"a": 1})
    checkpoints.save(state, policy, optimizer, schedule)
    step(policy, optimizer)

    other: Any = TinyPolicy()
    optimizer, schedule = parts(other)
    again = Checkpoints(RunFolder(tmp_path), 3, Fence(RunFolder(tmp_path)))
    assert again.load_latest(other, optimizer, schedule) == state
    step(other, optimizer)
    assert torch.equal(other.weight, policy.weight)


def saved(folder: Path, *steps: int) -> Checkpoints:
    """Save a checkpoint of each step. Its single weight is the step's number."""
    checkpoints = Checkpoints(RunFolder(folder), 3, Fence(RunFolder(folder)))
    for number in steps:
        policy: Any = TinyPolicy(float(number))
        checkpoints.save(RunState(step=number), policy, *parts(policy))
    return checkpoints


def damage_within(file: Path) -> None:
    """Change bytes in the middle of an archive. Its directory, at the end, is unchanged."""
    content = bytearray(file.read_bytes())
    begin = content.index(b"adapter")
    content[begin - 20 : begin + 20] = b"\xff" * 40
    file.write_bytes(content)


def other_parts(file: Path) -> None:
    torch.save({"adapter": {}}, file)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("training.pt", damage_within),
        ("training.pt", other_parts),
        ("training.pt", lambda file: file.write_bytes(file.read_bytes()[:500])),
        ("adapter/adapter_model.safetensors", lambda file: file.write_bytes(file.read_bytes()[:-1])),
        ("state.json", lambda file: file.write_text(file.read_text()[:20])),
    ],
)
def test_a_newest_checkpoint_that_cannot_be_read_is_named_and_the_one_before_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: Callable[[Path], object]
) -> None:
    saved(tmp_path, 2, 4)
    file = tmp_path / "checkpoints" / "step-000004" / name
    damage(file)
    policy: Any = TinyPolicy()
    again = Checkpoints(RunFolder(tmp_path), 3, Fence(RunFolder(tmp_path)))
    found = again.load_latest(policy, *parts(policy))
    assert found is not None
    assert (found.step, policy.weight.item()) == (2, 2.0)
    assert f"the checkpoint of step 4 cannot be read: {file}" in caplog.text
    assert "continues from the checkpoint of step 2" in caplog.text
    # Its step gets a checkpoint again, which can be read.
    policy.weight.data.fill_(9.0)
    again.save(RunState(step=4), policy, *parts(policy))
    found = again.load_latest(policy, *parts(policy))
    assert found is not None
    assert (found.step, policy.weight.item()) == (4, 9.0)
    assert (tmp_path / "checkpoints" / "step-000004.unreadable").is_dir()


def test_if_no_checkpoint_can_be_read_the_error_names_each_and_changes_nothing(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 2, 4)
    for step in (2, 4):
        folder = tmp_path / "checkpoints" / f"step-{step:06d}"
        shutil.rmtree(folder)
        folder.mkdir()
    policy: Any = TinyPolicy()
    with pytest.raises(NoCheckpointReadable, match=r"step 4: .*state.json: is missing; step 2: .*remove"):
        checkpoints.load_latest(policy, *parts(policy))
    assert RunFolder(tmp_path).steps_with_checkpoint() == [2, 4]


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    policy: Any = TinyPolicy()
    optimizer, schedule = parts(policy)
    checkpoints = Checkpoints(RunFolder(tmp_path), 2, Fence(RunFolder(tmp_path)))
    for number in range(1, 6):
        checkpoints.save(RunState(step=number, best_step=2 if number > 1 else 0), policy, optimizer, schedule)
    assert RunFolder(tmp_path).steps_with_checkpoint() == [2, 4, 5]


def test_an_older_attempt_may_not_write(tmp_path: Path) -> None:
    policy: Any = TinyPolicy()
    old = Fence(RunFolder(tmp_path))
    checkpoints = Checkpoints(RunFolder(tmp_path), 2, old)
    new = Fence(RunFolder(tmp_path))
    assert new.number == old.number + 1
    with pytest.raises(Fenced):
        checkpoints.save(RunState(step=1), policy, *parts(policy))
    new.check()


def test_an_attempt_that_is_replaced_while_it_writes_leaves_no_checkpoint(tmp_path: Path) -> None:
    policy: Any = TinyPolicy()
    checkpoints = Checkpoints(RunFolder(tmp_path), 2, Fence(RunFolder(tmp_path)))
    save = policy.save_adapter

    def slow(folder: Path) -> None:
        save(folder)
        Fence(RunFolder(tmp_path))

    policy.save_adapter = slow
    with pytest.raises(Fenced):
        checkpoints.save(RunState(step=1), policy, *parts(policy))
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_folder_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with files.new_folder(tmp_path / "whole") as unfinished:
            (unfinished / "first").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_attempt_left_is_not_a_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    (folder / ".step-000009.abcd1234.partial").mkdir(parents=True)
    Checkpoints(RunFolder(tmp_path), 2, Fence(RunFolder(tmp_path)))
    assert RunFolder(tmp_path).steps_with_checkpoint() == []
    assert list(folder.iterdir()) == []


def test_a_full_volume_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(VolumeError):
        files.write_json(blocked / "attempt.json", {})


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let a write fail when a file reaches ``size`` bytes, as it does on a full volume."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(("adapter", "optimizer_state"), [(1, 100_000), (100_000, 1)])
def test_a_volume_that_is_full_costs_the_new_checkpoint_only(
    tmp_path: Path, adapter: int, optimizer_state: int
) -> None:
    class Large(TinyPolicy):
        def save_adapter(self, folder: Path) -> None:
            super().save_adapter(folder)
            save_file({"weight": torch.zeros(adapter)}, folder / "adapter_model.safetensors")

        def adapter_state(self) -> dict[str, torch.Tensor]:
            return super().adapter_state() | {"more": torch.zeros(optimizer_state)}

    policy: Any = Large(1.0)
    optimizer, schedule = parts(policy)
    checkpoints = Checkpoints(RunFolder(tmp_path), 1, Fence(RunFolder(tmp_path)))
    checkpoints.save(RunState(step=1), policy, optimizer, schedule)
    with files_of_at_most(200_000), pytest.raises(VolumeError, match="MiB are free on its volume"):
        checkpoints.save(RunState(step=2), policy, optimizer, schedule)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000001"]
    assert checkpoints.load_latest(policy, optimizer, schedule) == RunState(step=1)


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "state.json"
    files.write_json(target, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(target, {"a": float("nan")})
    assert json.loads(target.read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
