"""The memory limit of a container.

The trainer reads the limit from cgroup v1 or v2, compares it with the plan, and notices when a run exceeds
the limit.
"""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rft_api.effective import effective
from rft_api.job import RFTJobSpec
from rft_api.status import Plan
from rft_run.config import JobIdentity, RunConfig
from rft_run.errors import ConfigurationError, MemoryExhausted, SamplerError
from rft_run.exit_codes import ExitCode
from rft_trainer.attempt import attempt
from rft_trainer.runtime import machine
from rft_trainer.runtime import memory as limits

NONE = "9223372036854771712\n"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "3221225472\n"}, 3 * 2**30),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/a/b\n", {"a/memory.max": "2048\n", "a/b/memory.max": "max\n"}, 2048),
        ("0::/a/b\n", {"a/memory.max": "2048\n", "a/b/memory.max": "1024\n"}, 1024),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "1073741824\n"}, 2**30),
        ("4:memory:/\n0::/\n", {"memory/memory.limit_in_bytes": NONE}, None),
        # In some containers the mounted root is the container's own cgroup, but the path is that of the host.
        ("4:memory:/kubepods/pod1/x\n", {"memory/memory.limit_in_bytes": "4096\n"}, 4096),
        ("", {}, None),
    ],
)
def test_the_limit_is_the_smallest_of_this_cgroup_and_its_parents(
    tmp_path: Path, groups: str, files: dict[str, str], limit: int | None
) -> None:
    named = tmp_path / "named"
    named.write_text(groups)
    assert machine.memory_limit(tree(tmp_path / "cgroup", files), named) == limit


@pytest.mark.parametrize(
    ("groups", "files", "kills"),
    [
        ("0::/\n", {"memory.events": "low 0\noom 3\noom_kill 2\n"}, 2),
        ("4:memory:/\n", {"memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"}, 1),
        ("0::/a\n", {"memory.events": "oom_kill 7\n", "a/memory.events": "oom_kill 0\n"}, 0),
        ("0::/\n", {}, 0),
    ],
)
def test_only_kills_in_this_cgroup_are_counted(
    tmp_path: Path, groups: str, files: dict[str, str], kills: int
) -> None:
    named = tmp_path / "named"
    named.write_text(groups)
    assert machine.out_of_memory_kills(tree(tmp_path / "cgroup", files), named) == kills


def test_without_readable_cgroup_files_there_is_no_limit(tmp_path: Path) -> None:
    assert machine.memory_limit(tmp_path / "none", tmp_path / "none") is None
    assert machine.out_of_memory_kills(tmp_path / "none", tmp_path / "none") == 0


def config(folder: Path, **plan: Any) -> RunConfig:
    spec = RFTJobSpec.model_validate(
        {
            "model": {"name": str(folder / "no-model")},
            "dataset": {"uri": "./rows.jsonl"},
            "graders": [{"name": "exact", "exactMatch": {}}],
            "storage": {"ephemeral": {}},
        }
    )
    return RunConfig(
        job=JobIdentity(name="small", namespace="default", uid="uid"),
        spec=spec,
        effective=effective(spec, "uid"),
        plan=Plan(**plan),
        run_dir=str(folder / "run"),
        dataset_path=str(folder / "rows.jsonl"),
    )


def test_less_than_the_plans_minimum_is_refused_with_both_numbers_and_the_fix(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        limits.refuse_too_little(config(tmp_path, least_memory="4000Mi"), 3000 * 2**20)
    for said in ("3000Mi", "4000Mi", "spec.resources.memory", "spec.training.maxContextLength"):
        assert said in str(refusal.value)


def test_enough_memory_a_forced_plan_or_no_plan_is_accepted(tmp_path: Path) -> None:
    limits.refuse_too_little(config(tmp_path, least_memory="4000Mi"), 4000 * 2**20)
    limits.refuse_too_little(config(tmp_path, least_memory="4000Mi", forced=True), 2**20)
    limits.refuse_too_little(config(tmp_path), 2**20)


def test_an_attempt_with_too_little_memory_fails_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attempt(config(tmp_path, least_memory="4000Gi"), lambda: False) == ExitCode.CONFIGURATION
    assert "is less than the 4000Gi" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_a_sampler_error_is_out_of_memory_only_after_a_kill_by_the_kernel(tmp_path: Path) -> None:
    given = config(tmp_path, least_memory="4000Mi")
    died = SamplerError("vLLM ended")
    kills = machine.out_of_memory_kills()
    assert limits.after_kills(died, given, kills) is died
    found = limits.after_kills(died, given, kills - 1)
    assert isinstance(found, MemoryExhausted)
    assert "needs at least 4000Mi" in str(found)
    other = ConfigurationError("wrong")
    assert limits.after_kills(other, given, kills - 1) is other


def test_a_sampler_without_memory_for_its_cache_is_out_of_memory_too(tmp_path: Path) -> None:
    said = (
        "Available memory on node 0 (0.1/1.0 GiB) on kv cache allocation is less than requested memory for kv"
    )
    refused = SamplerError(f"vLLM ended while starting: ValueError: {said}")
    found = limits.after_kills(
        refused, config(tmp_path, least_memory="4000Mi"), machine.out_of_memory_kills()
    )
    assert isinstance(found, MemoryExhausted)
    assert "KV cache does not fit into" in str(found)
    assert "needs at least 4000Mi" in str(found)


@pytest.fixture
def group() -> Iterator[Path]:
    """Return the folder of a new cgroup with a memory limit of 96 MiB."""
    top = machine.CGROUPS / "memory"
    folder = (top if top.is_dir() else machine.CGROUPS) / f"rft-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"this machine cannot create a memory cgroup: {error}")
    limit = next(
        (folder / name for name in ("memory.max", "memory.limit_in_bytes") if (folder / name).exists()), None
    )
    try:
        if limit is None:
            pytest.skip("this machine has no memory controller")
        limit.write_text(str(96 * 2**20))
        yield folder
    finally:
        folder.rmdir()


PROGRAM = """
import os, subprocess, sys
from pathlib import Path
Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
from rft_trainer.runtime import machine
before = machine.out_of_memory_kills()
child = subprocess.run([sys.executable, "-c", "x = bytearray(b'1') * (256 << 20)"], stderr=subprocess.DEVNULL)
print(machine.memory_limit(), before, child.returncode, machine.out_of_memory_kills())
"""


def test_a_kill_at_the_limit_of_a_real_cgroup_is_counted(
    group: Path,
) -> None:
    source = Path(machine.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(group)],
        env=os.environ | {"PYTHONPATH": str(source)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(96 * 2**20), "0", "-9", "1"]


def test_freed_large_blocks_are_returned_to_the_kernel() -> None:
    program = (
        "from rft_trainer.runtime import machine\n"
        "assert machine.give_large_blocks_back()\n"
        "def held(): return int(open('/proc/self/statm').read().split()[1]) * 4096\n"
        "before = held()\n"
        "for size in (1, 3, 7, 13):\n"
        "    blocks = [b'1' * (size << 20) for _ in range(40 // size)]\n"
        "    kept = bytearray(200_000)\n"
        "    del blocks\n"
        "print(held() - before)\n"
    )
    source = Path(machine.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(source)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) < 4 * 2**20
