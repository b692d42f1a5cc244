"""The default engine with a real vLLM server and the example model."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from rft_trainer import machine, models
from rft_trainer.rollout.engine import Request, SamplingParameters, rollout_seed
from rft_trainer.rollout.vllm_engine import VllmEngine
from rft_trainer.rollout.vllm_server import _MARKER, ServerOptions

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def folder() -> Path:
    return models.resolve(models.EXAMPLE_MODEL)


@pytest.fixture(scope="module")
def engine(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    run_dir, temporary = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        patch.setattr(tempfile, "tempdir", str(temporary))
        yield from _engine(folder, run_dir)
    assert list(temporary.iterdir()) == []


def _engine(folder: Path, run_dir: Path) -> Iterator[VllmEngine]:
    started = VllmEngine(
        ServerOptions(
            model=folder, context_length=128, lora_rank=8, run_dir=run_dir, dtype=machine.cpu_dtype()
        )
    )
    yield started
    started.close()
    assert not sampler_processes(run_dir)


def sampler_processes(run_dir: Path) -> list[int]:
    """Processes of this run's sampler that are still there, zombies aside."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"{_MARKER}={run_dir}".encode() in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def requests(folder: Path) -> list[Request]:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    parameters = SamplingParameters(temperature=0.7, top_p=1.0, top_k=40, max_tokens=16)
    made = []
    for number in range(4):
        messages = [{"role": "user", "content": f"Say {number}."}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        made += [Request(tuple(ids), rollout_seed(0, 1, number, i), parameters) for i in range(2)]
    return made


def test_seeded_rollouts_repeat_also_after_the_server_was_killed(
    engine: VllmEngine, requests: list[Request]
) -> None:
    first = engine.generate(requests)
    for completion in first:
        assert len(completion.token_ids) == len(completion.logprobs)
        assert all(logprob <= 0 for logprob in completion.logprobs)
    assert engine.generate(list(reversed(requests))) == list(reversed(first))

    group = engine.server.pid
    assert group is not None
    os.killpg(group, signal.SIGKILL)
    assert engine.generate(requests) == first
    assert engine.restarts == 1
