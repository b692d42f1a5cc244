"""Measures how much time and memory a large dataset needs before the first step of a run.

`make bench-data` writes a file of 10 GB into the system's temporary folder, and removes it at the end. It
measures two starts. In each start it opens the file as the trainer does, with the example model's tokenizer.
Then it chooses the prompts of ten steps. In the first start there is no index of the file's lines, and the
file is not in the page cache. In the second start there is an index, as when a run is resumed.

`--gigabytes` and `--folder` change the size and the place of the file. The benchmark prints a table.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rft_api.effective import effective
from rft_api.job import RFTJobSpec
from rft_run.config import JobIdentity, RunConfig
from rft_run.state import Position
from rft_trainer.data.opening import open_rows
from rft_trainer.data.rendering import Tokenizer
from rft_trainer.runtime import models

BLOCK_BYTES = 64 << 20
STEPS = 10
MIB = 2.0**20


@dataclass(frozen=True)
class Start:
    """Measurements of one start of a run.

    - ``first_step``: seconds until the first step.
    - ``steps``: seconds until the first ``STEPS`` steps have their prompts.
    - ``busy``: processor time until the first step, in seconds. It is less than ``first_step`` if the process
      waits, e.g. for the disk.
    - ``held``: how much the process's peak memory grew, in MiB.
    """

    name: str
    rows: int
    first_step: float
    busy: float
    steps: float
    held: float


def write_rows(path: Path, size: int) -> None:
    """Write about ``size`` bytes of rows of 0.5 kB each. One block of different rows is repeated."""
    block = b"".join(rows(BLOCK_BYTES))
    with path.open("wb") as file:
        for _ in range(max(1, size // len(block))):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        # Drop the file from the page cache, so that the first start reads it from the disk.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rows(size: int) -> Iterator[bytes]:
    """Yield different rows, together about ``size`` bytes."""
    number = 0
    while size > 0:
        words = " ".join(f"{number * step % 9973} and then" for step in range(1, 30))
        message = {"role": "user", "content": f"Number {number}: add {words} nothing more."}
        row = json.dumps({"messages": [message], "answer": str(number)}).encode() + b"\n"
        yield row
        size -= len(row)
        number += 1


def run_config(folder: Path, rows: Path) -> RunConfig:
    """Return the configuration of a run on these rows."""
    spec = RFTJobSpec.model_validate(
        {
            "model": {"name": models.EXAMPLE_MODEL},
            "dataset": {"uri": str(rows)},
            "graders": [{"name": "exact", "exactMatch": {}}],
            "sampling": {"maxTokens": 256},
            "storage": {"ephemeral": {}},
        }
    )
    return RunConfig(
        job=JobIdentity(name="data", namespace="bench", uid="uid"),
        spec=spec, effective=effective(spec, "uid", 8192), run_dir=str(folder), dataset_path=str(rows),
    )  # fmt: skip


def started(name: str, config: RunConfig, tokenizer: Tokenizer) -> Start:
    """Measure a start: open the rows as the trainer does, and choose the prompts of ``STEPS`` steps."""
    Path("/proc/self/clear_refs").write_text("5")
    before, began, worked = most_resident(), time.monotonic(), time.process_time()
    with ExitStack() as stack:
        opened = open_rows(config, stack, lambda: False)
        train = opened.rendered(tokenizer, None, 2048).train
        position, first, busy = Position(), 0.0, 0.0
        for _ in range(STEPS):
            position = train.batch(position, 1, 4, 128.0, 32768).after
            first, busy = first or time.monotonic() - began, busy or time.process_time() - worked
        seconds = time.monotonic() - began
        return Start(name, train.rows, first, busy, seconds, (most_resident() - before) / MIB)


def most_resident() -> int:
    """Return the peak memory of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def table(starts: list[Start], size: int) -> Iterator[str]:
    """Yield the lines of the result table."""
    yield f"{size / 1e9:.1f} GB"
    yield (
        "| start | rows | seconds to the first step | processor seconds to the first step"
        " | seconds to ten steps | MiB |"
    )
    yield "|---|--:|--:|--:|--:|--:|"
    for one in starts:
        times = f"{one.first_step:.1f} | {one.busy:.1f} | {one.steps:.1f}"
        yield f"| {one.name} | {one.rows} | {times} | {one.held:.0f} |"


def main() -> None:
    """Measure two starts, without and with an index of the file's lines. Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--folder", type=Path, help="folder for the file, which is removed at the end")
    arguments = parser.parse_args()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models.resolve(models.EXAMPLE_MODEL))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        path = Path(name) / "rows.jsonl"
        write_rows(path, int(arguments.gigabytes * 1e9))
        print(f"wrote {path.stat().st_size / 1e9:.1f} GB", file=sys.stderr, flush=True)
        config = run_config(Path(name), path)
        starts = [started(name, config, tokenizer) for name in ("first", "resumed")]
        print("\n".join(table(starts, path.stat().st_size)))


if __name__ == "__main__":
    main()
