"""Hostile files in a run's folder, such as zstd bombs, long lines and FIFOs.

They are refused, or read within limits of size and memory.
"""

import gzip
import io
import json
import os
import resource
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
import zstandard
from typer.testing import CliRunner

from rft_cli.errors import UserError
from rft_cli.local import records
from rft_cli.local.lock import locked
from rft_cli.local.trainer import tail
from rft_cli.main import app
from rft_run import run_files
from rft_run.card import licence_of
from rft_run.checkpoint import checkpoint_problem, read_state
from rft_run.errors import DataError
from rft_run.folder import RunFolder, adapter_config_of, adapter_of, card_of, pickle_of, state_of, tensors_of
from rft_run.rollouts import UnreadableRollouts, each_rollout, read_rollouts
from rft_run.rows import RowLayout, json_lines, parsed
from rft_run.state import RunState
from rft_run.status_file import UnreadableStatus, read_status
from rft_run.steps import UnreadableSteps, read_steps
from tests.unit.checkpoint_support import as_old_release, write_adapter, write_checkpoint

MIB = 1 << 20
GRADED = {"line": 1, "completion": "2", "graders": {"right": 1.0}}


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """Let this process allocate at most 1 GiB more, so that a reader without limits fails."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 1024 * MIB, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def packed(path: Path, pieces: Iterator[bytes]) -> Path:
    """Write a zstd file whose unpacked content is ``pieces``. Return ``path``.

    The pieces are written one after the other, so the whole content is never in memory.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, zstandard.ZstdCompressor(level=1).stream_writer(file) as stream:
        for piece in pieces:
            stream.write(piece)
    return path


# --- zstd files -----------------------------------------------------------------------------------


def test_a_small_file_of_rollouts_that_unpacks_to_one_huge_line_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "step-000001.jsonl.zst", (bytes(MIB) for _ in range(1100)))
    assert path.stat().st_size < 200_000
    with pytest.raises(UnreadableRollouts, match=r"step-000001.jsonl.zst: .*line 1: is longer than 64 MiB"):
        read_rollouts(path)


def test_a_small_file_of_rollouts_that_unpacks_to_many_lines_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_files, "ROLLOUTS_BYTES", 8 * MIB)
    line = json.dumps({**GRADED, "completion": "x" * (MIB - 100)}).encode() + b"\n"
    path = packed(tmp_path / "rollouts.zst", (line for _ in range(20)))
    with pytest.raises(UnreadableRollouts, match="has more than 8 MiB, the most that is read"):
        for _ in each_rollout(path):
            pass


def test_rollouts_that_need_a_huge_window_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.zst"
    parameters = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=False)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path.write_bytes(stream.compress(b"x" * 100) + stream.flush())
    with pytest.raises(UnreadableRollouts, match=r"rollouts.zst: .*too much memory"):
        read_rollouts(path)


def test_rollouts_are_read_as_before(tmp_path: Path) -> None:
    lines = [json.dumps({**GRADED, "line": number}).encode() + b"\n" for number in range(1, 400)]
    path = packed(tmp_path / "rollouts.zst", iter(lines))
    assert [record.line for record in read_rollouts(path)] == list(range(1, 400))
    assert next(each_rollout(path)).line == 1


def test_a_dataset_that_unpacks_at_an_impossible_ratio_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_files, "UNPACKED_BYTES", 4 * MIB)
    row = json.dumps({"prompt": "x" * 1000}).encode() + b"\n"
    bomb = gzip.compress(row * 16_000, 9)
    lines = json_lines(io.BytesIO(bomb), RowLayout(), "rows.jsonl.gz")
    with pytest.raises(DataError, match=r"rows.jsonl.gz: has more than \d MiB"):
        for _ in lines:
            pass


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_row_that_never_ends_is_refused(form: Any, pack: Callable[[bytes], bytes]) -> None:
    begin = b"prompt\n" if form == "csv" else b'{"prompt": "a"}\n'
    content = pack(begin + b" " * (70 * MIB))
    with pytest.raises(DataError, match="rows: line 2: is longer than 64 MiB"):
        for _ in json_lines(io.BytesIO(content), RowLayout(form), "rows"):
            pass


def test_a_long_row_is_read() -> None:
    row = json.dumps({"prompt": "a", "tests": "1, 2, [3], " * 2_000_000}).encode()
    assert next(json_lines(io.BytesIO(row), RowLayout(), "rows")) == row


# --- JSON and YAML --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"[" * 1_000_000, "nested too deeply"),
        (b'{"a":' * 1_000_000, "nested too deeply"),
        (b"[" + b"[]," * 5_000_000 + b"[]]", "4,000,000 JSON values"),
        (b'["' + b'\\",' * 5_000_000, "Unterminated string"),
        (b"1" * 5000, "4300 digits"),
        (b"\xff", "utf-8"),
        (b"", "Expecting value"),
    ],
)
def test_json_that_takes_too_much_is_an_error_of_value(raw: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run_files.json_value(raw)


def test_signs_within_a_text_are_not_counted_as_values() -> None:
    text = '1, 2, [3], \\"4\\", {' * 1_000_000
    assert run_files.json_value(f'["{text}"]'.encode()) == [text.replace("\\", "")]


@pytest.mark.parametrize(
    "state",
    [
        {"step": 10**400, "position": {"epoch": 1, "offset": 0}},
        {"step": 1, "position": {"epoch": 1, "offset": -1}},
        {"step": 1, "position": {"epoch": "1", "offset": 0}},
        {"step": 1, "position": [1, 0]},
        {"step": True, "position": {"epoch": 1, "offset": 0}},
        {"step": 1, "position": {"epoch": 1, "offset": 0}, "gpu_seconds": 10**400},
        {"step": 1, "position": {"epoch": 1, "offset": 0}, "expected_completion": float("nan")},
        {"step": 1, "position": {"epoch": 1, "offset": 0}, "best_reward": "0.5"},
        {"step": 1, "position": {"epoch": 1, "offset": 0}, "grader_errors": {"a": None}},
        {"step": 1, "position": {"epoch": 1, "offset": 0}, "grader_errors": []},
        [],
        None,
    ],
)
def test_a_state_with_values_that_no_run_has_is_refused(tmp_path: Path, state: object) -> None:
    state_of(tmp_path).write_text(json.dumps(state))
    with pytest.raises(ValueError, match="is not a run's state"):
        read_state(tmp_path)
    with pytest.raises(UserError, match=r"state.json"):
        records.state(state_of(tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"step": 1' + "0" * 400 + ', "reward": 1}\n', "line 1: is not the record of a step"),
        ('{"step": ' + "[" * 100_000 + "\n", "line 1: is not the record of a step"),
        ('{"step": 1, "reward": 1, "x": "' + "x" * 65 * MIB + '"}\n', "line 1: is longer than 64 MiB"),
    ],
)
def test_a_step_with_values_that_no_run_has_is_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(content)
    with pytest.raises(UnreadableSteps, match=f"metrics.jsonl: {said}"):
        read_steps(path)


def test_more_steps_than_a_run_can_have_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' * 11)
    assert len(read_steps(path)) == 11
    monkeypatch.setattr(run_files, "METRICS_LINES", 10)
    broken: list[int] = []
    for skipped in (None, broken):  # a shortened list would look like a run of fewer steps
        with pytest.raises(UnreadableSteps, match="has more than 10 steps"):
            read_steps(path, skipped)


def nested(levels: int, form: str) -> str:
    first = "a0: &a0 {x: 1}\n" if form == "merge" else "a0: &a0 [x, x]\n"
    for level in range(1, levels):
        parts = ", ".join([f"*a{level - 1}"] * 10)
        first += f"a{level}: &a{level} " + (f"{{<<: [{parts}]}}\n" if form == "merge" else f"[{parts}]\n")
    return first


@pytest.mark.parametrize(
    "content",
    [
        nested(12, "list"),
        nested(12, "merge"),
        "a: &a [*a]\n",
        "[" * 600,
        "phase: !!python/object/apply:os.system ['true']\n",
        "x" * (3 * MIB),
        "- 1\n",
    ],
    ids=["aliases", "merges", "itself", "depth", "object", "size", "list"],
)
def test_a_status_that_takes_too_much_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "status.yaml"
    path.write_text(content)
    with pytest.raises(UnreadableStatus, match=r"status.yaml: "):
        read_status(path)


def test_a_status_may_name_a_part_twice(tmp_path: Path) -> None:
    path = tmp_path / "status.yaml"
    part = {"step": 1, "reward": 0.5}
    path.write_text(yaml.safe_dump({"reward": {"history": [part, part]}}))
    assert "&id" in path.read_text()
    read = read_status(path).reward
    assert read is not None
    assert [point.step for point in read.history or []] == [1, 1]


def test_a_header_of_tensors_with_too_many_values_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_checkpoint(folder, 4)
    header = b"[" + b"[]," * 5_000_000 + b"[]]"
    tensors_of(folder.checkpoint_of(4)).write_bytes(len(header).to_bytes(8, "little") + header)
    assert "not a safetensors header" in str(checkpoint_problem(folder, 4))


# --- what is not a regular file -------------------------------------------------------------------


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(path.parent)  # the address of a socket has room for a short path only
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


def a_link_outside(path: Path) -> None:
    path.symlink_to(SECRET)


def a_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


SECRET = Path("/etc/passwd")
OTHERS = (a_fifo, a_socket, a_link_outside, a_link_to_a_device)
FILES: list[tuple[str, Callable[[Path], object]]] = [
    ("run.json", lambda run: CliRunner().invoke(app, ["report", str(run)], catch_exceptions=False)),
    ("metrics.jsonl", lambda run: records.steps(run / "metrics.jsonl")),
    ("status.yaml", lambda run: records.status(run / "status.yaml")),
    ("rollouts/step-000001.jsonl.zst", lambda run: records.rollouts(RunFolder(run).rollouts_of(1))),
    (
        "checkpoints/step-000002/state.json",
        lambda run: records.state(state_of(RunFolder(run).checkpoint_of(2))),
    ),
    ("trainer.log", lambda run: run_files.end(run / "trainer.log")),
    (".rft.lock", lambda run: locked(RunFolder(run)).__enter__()),
    ("trainer.log", lambda run: locked(RunFolder(run)).__enter__()),
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", OTHERS)
@pytest.mark.parametrize(("name", "read"), FILES)
def test_what_is_no_regular_file_of_the_run_is_refused_at_once(
    tmp_path: Path, name: str, read: Callable[[Path], Any], make: Callable[[Path], None]
) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    make(file)
    before = SECRET.read_bytes()
    try:
        shown = read(tmp_path)
    except (UserError, run_files.UnreadableFile) as error:
        said = str(error)
    else:
        assert shown.exit_code == 2
        said = shown.output
    assert any(
        kind in said for kind in ("is a FIFO", "is a socket", "is a symbolic link", "cannot be written")
    )
    assert "root:" not in said
    assert SECRET.read_bytes() == before


def test_a_lock_that_is_a_link_leaves_the_file_alone_that_it_points_to(tmp_path: Path) -> None:
    precious, run = tmp_path / "precious", tmp_path / "run"
    precious.write_text("mine")
    run.mkdir()
    (run / ".rft.lock").symlink_to(precious)
    with pytest.raises(UserError, match="symbolic link"), locked(RunFolder(run)):
        pass
    assert precious.read_text() == "mine"


def test_an_adapter_with_a_link_to_another_file_is_not_exported(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_adapter(run / "adapter")
    secret = tmp_path / "id_rsa"
    secret.write_text("secret")
    (run / "adapter" / "README.md").symlink_to(secret)
    result = CliRunner().invoke(app, ["export", str(run), "--output", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "README.md: is a symbolic link" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_is_a_link_is_not_used(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    write_checkpoint(RunFolder(tmp_path / "other"), 4)
    folder.checkpoints.mkdir(parents=True)
    folder.checkpoint_of(4).symlink_to(RunFolder(tmp_path / "other").checkpoint_of(4))
    assert "is a symbolic link" in str(checkpoint_problem(folder, 4))


def test_a_folder_of_checkpoints_may_be_on_another_disk(tmp_path: Path) -> None:
    folder, disk = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "disk")
    write_checkpoint(disk, 4)
    folder.path.mkdir()
    folder.checkpoints.symlink_to(disk.checkpoints)
    assert checkpoint_problem(folder, 4) is None


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "trainer.log"
    with log.open("wb") as file:
        file.truncate(4 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe reason\n")
    assert tail(log, 1) == ["the reason"]


def test_an_adapter_with_a_configuration_that_is_too_large_is_not_used(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_checkpoint(folder, 4, RunState(step=4))
    file = adapter_config_of(adapter_of(folder.checkpoint_of(4)))
    with file.open("r+b") as stream:
        stream.truncate(1 << 34)  # a sparse file, which takes no space on the disk
    problem = str(checkpoint_problem(folder, 4))
    assert f"{file}: is larger than 16 MiB" in problem


def test_the_directory_of_a_pickle_is_read_within_a_bound(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_checkpoint(folder, 4)
    as_old_release(folder.checkpoint_of(4))
    claimed = 3 << 30
    with pickle_of(folder.checkpoint_of(4)).open("wb") as file:
        file.truncate(claimed)  # a sparse file, which takes no space on the disk
        file.seek(0, os.SEEK_END)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, claimed, 0, 0))
    assert "training.pt: the file is not a complete torch.save file" in str(checkpoint_problem(folder, 4))


def test_the_card_of_a_model_cannot_take_much_memory(tmp_path: Path) -> None:
    for front in (nested(12, "merge"), nested(12, "list"), "[" * 600):
        card_of(tmp_path).write_text(f"---\n{front}\n---\n")
        assert licence_of(tmp_path) is None
    card_of(tmp_path).write_text("---\nlicense: mit\n---\n")
    assert licence_of(tmp_path) == "mit"


def test_a_row_with_too_many_values_is_refused() -> None:
    with pytest.raises(ValueError, match="4,000,000 JSON values"):
        parsed(b'{"prompt": "a", "x": [' + b"[]," * 5_000_000 + b"[]]}", RowLayout())


def test_a_link_that_the_user_names_is_followed(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "reward": 0.5}\n')
    (tmp_path / "link.jsonl").symlink_to("metrics.jsonl")
    assert CliRunner().invoke(app, ["curve", str(tmp_path / "link.jsonl")]).exit_code == 0
