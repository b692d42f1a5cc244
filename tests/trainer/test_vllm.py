"""The default engine with a real vLLM server and the example model."""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from rft_trainer import machine, models
from rft_trainer.export import merge
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


def test_vllm_serves_a_merged_model_that_answers_as_base_plus_adapter(folder: Path, tmp_path: Path) -> None:
    base: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompts = [list(request.prompt_token_ids) for request in greedy(folder)]
    unmoved = answers(base, prompts)
    torch.manual_seed(0)
    adapted: Any = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    expected = answers(adapted, prompts)
    assert all(one != other for one, other in zip(expected, unmoved, strict=True))

    merge(folder, tmp_path / "adapter", tmp_path / "merged", "float32")
    options = ServerOptions(
        model=tmp_path / "merged", context_length=128, lora_rank=8, run_dir=tmp_path, dtype="float32"
    )
    with closing(VllmEngine(options)) as served:
        said = [list(completion.token_ids) for completion in served.generate(greedy(folder))]
    assert said == expected


def greedy(folder: Path) -> list[Request]:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    parameters = SamplingParameters.greedily(16)
    made = []
    for question in ("What is 12 + 30?", "Name a colour.", "Who wrote Faust?"):
        messages = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        made.append(Request(tuple(ids), 0, parameters))
    return made


def answers(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    """Return the most probable completion of each prompt, its end token included as vLLM has it."""
    made = []
    for prompt in prompts:
        written = model.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False)
        made.append(written[0, len(prompt) :].tolist())
    return made
