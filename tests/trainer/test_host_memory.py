"""The memory of a run's processes is compared with the prediction of the planner.

`make bench-memory` compares more models and longer sequences. tests/e2e/test_memory_limit.py tests a run in a
pod whose limit is the planned minimum.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.memory import Case, Peak, Watch, descendants, file_pages, measure, model_named, shape_of
from rft_api.parameters import Dtype, Training
from rft_planner import host
from rft_planner.memory import MemoryDemand
from rft_planner.precision import WIDTHS, fast_cpu_dtype
from rft_trainer.learn.packing import Completion, PackedRow, build
from rft_trainer.learn.policy import Policy, PolicyOptions
from tests.waiting import wait_until

LOWEST, HIGHEST = 1.00, 1.20


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def assert_planned(case: Case, models: Path, folder: Path) -> None:
    found = measure(case, model_named(case.name, models), folder)
    assert all(LOWEST <= ratio <= HIGHEST for ratio in [found.ratio, *found.ratios.values()]), found


@pytest.mark.timeout(900)
@pytest.mark.long
@pytest.mark.vllm
def test_trainer_and_vllm_use_about_the_planned_memory(models: Path, tmp_path: Path) -> None:
    """In this machine's own dtype. tests/e2e/test_memory_limit.py runs vLLM in both dtypes."""
    case = Case("random-58M", 256, 200, least=True)
    assert_planned(replace(case, dtype=fast_cpu_dtype()), models, tmp_path / "run")


@pytest.mark.timeout(900)
@pytest.mark.long
@pytest.mark.parametrize("dtype", WIDTHS)
def test_a_trainer_that_samples_uses_about_the_planned_memory(
    dtype: Dtype, models: Path, tmp_path: Path
) -> None:
    case = Case("random-58M", 128, 72, least=True, engine="transformers")
    assert_planned(replace(case, dtype=dtype), models, tmp_path / "run")


@pytest.mark.parametrize("dtype", WIDTHS)
@pytest.mark.parametrize("samples", [1, 3])
def test_autograd_saves_about_as_much_as_the_formula_says(
    character_model: Path, samples: int, dtype: Dtype
) -> None:
    training = Training(lora_rank=4)
    policy = Policy(PolicyOptions(character_model, training, "cpu", dtype, 0))
    completion = Completion((3,) * 200, (0.0,) * 200, 1.0)
    batch = build([PackedRow((4, 5, 6), (completion,) * samples)])
    weights = {parameter.untyped_storage().data_ptr() for parameter in policy._model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            kept[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = policy.hidden(batch)
    assert hidden.requires_grad
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    shape, tokens = shape_of(character_model), batch.tokens_B_T.numel()
    run = host.HostRun(
        MemoryDemand(4, tokens, samples), 200, tokens,
        reference=True, sorts=False, unfiltered=False, in_process=True, dtype=dtype,
    )  # fmt: skip
    # ``attention_mask`` also counts two boolean masks, which are freed before this point.
    mask = host.attention_mask(run, tokens) - 2 * tokens**2 if samples > 1 else 0
    predicted = host.saved_activations(shape, run, tokens) + mask
    assert 1.0 <= predicted / measured <= 1.15


SPAWNS = """
import os, sys
held = bytearray(os.urandom(1)) * (64 << 20)
print("ready", flush=True)
# The child of posix_spawn opens the pipe before it starts its program. This waits for a writer.
opens = (os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)
os.posix_spawn("/bin/true", ["true"], {}, file_actions=[opens])
"""


def test_a_child_that_has_not_started_its_program_is_not_counted_twice(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-c", SPAWNS, str(pipe)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        wait_until("the child exists", lambda: len(descendants(process.pid)) == 2, 10)
        held = Watch(process.pid).held()
        pipe.open("w").close()
    assert held["trainer"] > 64 << 20
    assert held["vLLM"] == 0.0


SMAPS = """\
7f10-7f20 r--p 00000000 00:1f 5 /models/model.safetensors
Rss:                 100 kB
Anonymous:             0 kB
7f20-7f30 r--p 00000000 00:1f 5 /models/model.safetensors
Rss:                  80 kB
Anonymous:             0 kB
7f30-7f40 r-xp 00001000 00:1f 6 /lib/with a space.so
Rss:                  50 kB
Anonymous:             0 kB
7f40-7f50 rw-p 00002000 00:1f 6 /lib/with a space.so
Rss:                  20 kB
Anonymous:            16 kB
7f50-7f60 rw-s 00000000 00:1f 7 /dev/shm/psm_1
Rss:                  30 kB
Anonymous:             0 kB
7f60-7f70 rw-p 00000000 00:00 0
Rss:                  40 kB
Anonymous:            40 kB
7f70-7f80 rw-p 00000000 00:00 0 [heap]
Rss:                  40 kB
Anonymous:            40 kB
"""


def test_a_files_pages_count_once_and_written_or_shared_pages_do_not() -> None:
    assert file_pages(SMAPS.splitlines()) == {
        "/models/model.safetensors": 100 * 1024,
        "/lib/with a space.so": (50 + 4) * 1024,
    }


def test_the_trainer_is_compared_only_while_vllm_shares_the_pages_of_libraries() -> None:
    peak = Peak()
    for trainer, vllm in ((1.0, 0.0), (5.0, 3.0), (7.0, 0.0)):
        peak.add({"trainer": trainer, "vLLM": vllm})
    assert peak.trees == {"trainer": 5.0, "vLLM": 3.0}
    assert peak.total == 8.0
    alone = Peak()
    alone.add({"trainer": 2.0, "vLLM": 0.0})
    assert alone.trees["trainer"] == 2.0
