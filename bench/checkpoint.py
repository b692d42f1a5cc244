"""Measures how long it takes to write and to read the training state of a checkpoint, and its size.

`make bench-checkpoint` compares two forms of the state: the two files of a checkpoint, and one pickle of
``torch.save``. Earlier releases wrote the pickle. The state has an adapter of ``--weights`` numbers in
float32. It also has the two moments that AdamW keeps for each of these numbers. Files are flushed to the
disk, as in a run. The table shows the median of ``--rounds`` measurements.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median

import torch

from rft_run import atomic
from rft_run.folder import pickle_of
from rft_trainer import training_state
from rft_trainer.training_state import TrainingState

_MATRIX = 16 * 4096


def state(weights: int) -> TrainingState:
    """Return a training state with this number of random weights, as matrices of LoRA with rank 16."""
    matrices = [torch.nn.Parameter(torch.randn(16, 4096)) for _ in range(weights // _MATRIX)]
    optimizer = torch.optim.AdamW(matrices)
    for matrix in matrices:
        matrix.grad = torch.randn_like(matrix)
    optimizer.step()
    return TrainingState(
        adapter={f"layers.{number}": matrix.detach() for number, matrix in enumerate(matrices)},
        optimizer=optimizer.state_dict(),
        schedule={"done": 0.5},
        torch_rng=torch.get_rng_state(),
        cuda_rng=[],
        python_rng=random.getstate(),
    )


def write_pickle(folder: Path, saved: TrainingState) -> None:
    """Write a state as one pickle, as earlier releases did."""
    torch.save(asdict(saved), pickle_of(folder))


def seconds(call: Callable[[], object]) -> float:
    """Return how many seconds a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def flushed(write: Callable[[Path, TrainingState], None], folder: Path, saved: TrainingState) -> None:
    """Write a training state, and flush its files to the disk."""
    write(folder, saved)
    for file in folder.iterdir():
        atomic.sync(file)


def measured(
    write: Callable[[Path, TrainingState], None], saved: TrainingState, rounds: int
) -> tuple[float, float, int]:
    """Return the seconds to write, the seconds to read, and the number of bytes on the disk.

    ``write`` writes the state ``saved``. The seconds are medians of ``rounds`` measurements.
    """
    writes, reads, size = [], [], 0
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            writes.append(seconds(partial(flushed, write, folder, saved)))
            reads.append(seconds(partial(training_state.read, folder)))
            size = sum(file.stat().st_size for file in folder.iterdir())
    return median(writes), median(reads), size


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    saved = state(options.weights)
    print("| form | write, seconds | read, seconds | MiB |\n|---|--:|--:|--:|")
    for name, write in (("training.pt", write_pickle), ("safetensors and JSON", training_state.write)):
        took, read, size = measured(write, saved, options.rounds)
        print(f"| {name} | {took:.2f} | {read:.2f} | {size / 2**20:.2f} |", flush=True)


if __name__ == "__main__":
    main()
