"""A checkpoint is complete or does not exist. Only the newest attempt may write checkpoints."""

import json
import os
import pickle
import random
import resource
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rft_run.errors import Fenced, NoCheckpointReadable, VolumeError
from rft_run.folder import RunFolder, pickle_of, tensors_of, values_of
from rft_run.state import Position, RunState
from rft_trainer import files, training_state
from rft_trainer.checkpoint import Checkpoints, Fence
from rft_trainer.learn.optimizer import Schedule, make_optimizer
from rft_trainer.training_state import TrainingState


class TinyPolicy:
    """A fake ``Policy`` with a single weight."""

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
    """Save a checkpoint of each step in ``steps``. The policy's single weight is the step's number."""
    checkpoints = Checkpoints(RunFolder(folder), 3, Fence(RunFolder(folder)))
    for number in steps:
        policy: Any = TinyPolicy(float(number))
        checkpoints.save(RunState(step=number), policy, *parts(policy))
    return checkpoints


def damage_within(file: Path) -> None:
    """Change bytes in the middle of a zip archive. The archive's directory, at its end, is unchanged."""
    content = bytearray(file.read_bytes())
    begin = content.index(b"adapter")
    content[begin - 20 : begin + 20] = b"\xff" * 40
    file.write_bytes(content)


def as_pickle(folder: Path, **changes: Any) -> Path:
    """Replace a checkpoint's training state by a pickle, as in older releases. Return the pickle's path."""
    state = asdict(training_state.read(folder)) | changes
    tensors_of(folder).unlink()
    values_of(folder).unlink()
    torch.save(state, pickle_of(folder))
    return pickle_of(folder)


def older(damage: Callable[[Path], object]) -> Callable[[Path], object]:
    """Return a function that writes a pickle as an older release did, and then damages it."""
    return lambda file: damage(as_pickle(file.parent))


def other_parts(file: Path) -> None:
    torch.save({"adapter": {}}, file)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def changed(**changes: Any) -> Callable[[Path], object]:
    """Return a function that sets these values in the file ``training.json``."""
    return lambda file: file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def other_tensors(file: Path) -> None:
    save_file({"adapter.weight": torch.zeros(1), "optimizer.0.exp_avg": torch.zeros(3)}, file)


def shared(file: Path) -> None:
    """Write a file in which a thousand tensors share the same 4 MiB of data."""
    entry = {"dtype": "F32", "shape": [1 << 20], "data_offsets": [0, 4 << 20]}
    header = json.dumps({f"adapter.{number}": entry for number in range(1000)}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4 << 20))


def of_another_shape(file: Path) -> None:
    entry = {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}
    header = json.dumps({"adapter.weight": entry}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


def no_weights(file: Path) -> None:
    save_file({"optimizer.0.step": torch.tensor(1.0)}, file)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("training.pt", older(damage_within)),
        ("training.pt", older(other_parts)),
        ("training.pt", older(cut)),
        ("training.safetensors", cut),
        ("training.safetensors", other_tensors),
        ("training.safetensors", no_weights),
        ("training.safetensors", shared),
        ("training.safetensors", of_another_shape),
        ("training.json", cut),
        ("training.json", changed(random={"python": [3, [1, 2], None], "torch": "", "cuda": []})),
        ("training.json", changed(optimizer=[])),
        ("training.json", changed(optimizer=[{"params": [0], "lr": 10**400}])),
        ("training.json", changed(schedule=[])),
        ("training.json", lambda file: file.write_text("[" * 100_000)),
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
    assert (
        f"the checkpoint of step 4 cannot be read: {file.parents[len(Path(name).parents) - 1]}" in caplog.text
    )
    assert str(file) in caplog.text or "does not fit" in caplog.text or "lacks 1 weights" in caplog.text
    assert "continues from the checkpoint of step 2" in caplog.text
    # After the refused checkpoint, a new checkpoint of the same step can be saved and read.
    policy.weight.data.fill_(9.0)
    again.save(RunState(step=4), policy, *parts(policy))
    found = again.load_latest(policy, *parts(policy))
    assert found is not None
    assert (found.step, policy.weight.item()) == (4, 9.0)
    assert (tmp_path / "checkpoints" / "step-000004.unreadable").is_dir()


def test_every_part_is_read_to_the_bit_as_it_was_written(tmp_path: Path) -> None:
    random.seed(7)
    random.gauss(0, 1)  # draws two numbers, and keeps the second one for the next call
    torch.manual_seed(7)
    strange = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])
    state = TrainingState(
        adapter={"a.b.weight": torch.randn(2, 3), "half": torch.randn(5).bfloat16(), "empty": torch.zeros(0)},
        optimizer={
            "state": {
                0: {"step": torch.tensor(3.0), "exp_avg": strange},
                11: {"exp_avg": torch.randn(4, 4).T},
            },
            "param_groups": [{"lr": 0.1 + 0.2, "betas": (0.9, 0.999), "fused": None, "params": [0, 11]}],
        },
        schedule={"done": 1 / 3},
        torch_rng=torch.get_rng_state(),
        cuda_rng=[torch.arange(16, dtype=torch.uint8), torch.arange(200, 216).to(torch.uint8)],
        python_rng=random.getstate(),
    )
    training_state.write(tmp_path, state)
    read = training_state.read(tmp_path)
    assert flat(asdict(read)) == flat(asdict(state))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["training.json", "training.safetensors"]


def flat(value: Any) -> Any:
    """Return a copy of a state, with (dtype, shape, bytes) for each tensor, so that == can compare states."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.shape, bytes(value.contiguous().reshape(-1).view(torch.uint8).tolist())
    if isinstance(value, dict):
        return {key: flat(part) for key, part in sorted(value.items())}
    return type(value)(map(flat, value)) if isinstance(value, list | tuple) else value


def test_a_checkpoint_of_an_older_release_is_resumed_as_if_the_run_had_never_stopped(tmp_path: Path) -> None:
    policy: Any = TinyPolicy(1.0)
    optimizer, schedule = parts(policy)
    checkpoints = Checkpoints(RunFolder(tmp_path), 3, Fence(RunFolder(tmp_path)))
    schedule.set(5, 10)
    step(policy, optimizer)
    random.gauss(0, 1)
    folder = checkpoints.save(RunState(step=5), policy, optimizer, schedule)
    step(policy, optimizer)
    expected = policy.weight.item(), random.gauss(0, 1), random.random(), schedule.set(6, 10)

    as_pickle(folder)
    other: Any = TinyPolicy()
    optimizer, schedule = parts(other)
    assert checkpoints.load_latest(other, optimizer, schedule) == RunState(step=5)
    step(other, optimizer)
    assert (other.weight.item(), random.gauss(0, 1), random.random(), schedule.set(6, 10)) == expected


class Runs:
    """An object that runs code when it is unpickled: the code creates ``file``."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._file}",)


@pytest.mark.parametrize("protocol", [2, 4])
def test_code_in_the_pickle_of_a_checkpoint_does_not_run_and_the_error_says_what_to_do(
    tmp_path: Path, protocol: int
) -> None:
    checkpoints, ran = saved(tmp_path, 2), tmp_path / "ran"
    folder = RunFolder(tmp_path).checkpoint_of(2)
    file = as_pickle(folder)
    state = torch.load(file, weights_only=True) | {"schedule": Runs(ran)}
    torch.save(state, file, pickle_protocol=protocol)
    policy: Any = TinyPolicy()
    with pytest.raises(NoCheckpointReadable, match=r"training.pt: is a pickle that could run code"):
        checkpoints.load_latest(policy, *parts(policy))
    assert not ran.exists()
    torch.load(file, weights_only=False)  # a loader that trusts the file runs the code
    assert ran.exists()


def of_no_archive(file: Path, content: Any) -> None:
    """Write a plain pickle, not a zip archive as torch.save writes it today."""
    torch.save(content, file, _use_new_zipfile_serialization=False)


def behind_an_archive(file: Path, content: Any) -> None:
    """Write a pickle and then a zip archive into one file, so that it also counts as an archive."""
    file.write_bytes(pickle.dumps(content) + file.read_bytes())


@pytest.mark.parametrize("hide", [of_no_archive, behind_an_archive])
def test_code_in_another_kind_of_file_does_not_run_either(
    tmp_path: Path, hide: Callable[[Path, Any], None]
) -> None:
    checkpoints, ran = saved(tmp_path, 2), tmp_path / "ran"
    hide(as_pickle(RunFolder(tmp_path).checkpoint_of(2)), Runs(ran))
    policy: Any = TinyPolicy()
    with pytest.raises(NoCheckpointReadable, match=r"training.pt"):
        checkpoints.load_latest(policy, *parts(policy))
    assert not ran.exists()


def packed(file: Path) -> None:
    """Write the archive again with compressed entries. One of them is small, but unpacks to 16 MiB."""
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            if name.endswith("/data/0"):
                with archive.open(name, "w", force_zip64=True) as entry:
                    for _ in range(16):
                        entry.write(bytes(1 << 20))
            else:
                archive.writestr(name, content)


def expanded(file: Path) -> None:
    """Save a weight whose shape means 4 TiB, but which has the data of only one number."""
    torch.save(
        torch.load(file, weights_only=True) | {"adapter": {"weight": torch.zeros(1).expand(1 << 40)}}, file
    )


@pytest.mark.parametrize(("enlarge", "said"), [(packed, "unpack to"), (expanded, "larger than its data")])
def test_a_small_pickle_cannot_take_much_memory(
    tmp_path: Path, enlarge: Callable[[Path], None], said: str
) -> None:
    checkpoints = saved(tmp_path, 2)
    enlarge(as_pickle(RunFolder(tmp_path).checkpoint_of(2)))
    policy: Any = TinyPolicy()
    with pytest.raises(NoCheckpointReadable, match=f"training.pt: .*{said}"):
        checkpoints.load_latest(policy, *parts(policy))


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
    """Make writes fail when a file would exceed ``size`` bytes, as on a full volume."""
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
