"""The engine ``vllm``, which is the default engine, with a real vLLM server and the model of the example."""

import os
import signal
import statistics
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from rft_api.parameters import Dtype, Training
from rft_planner.precision import WIDTHS
from rft_run.errors import SamplerError
from rft_trainer.export import merge
from rft_trainer.learn.logprobs import token_logprobs
from rft_trainer.learn.packing import Completion, PackedRow, build
from rft_trainer.learn.policy import Policy, PolicyOptions
from rft_trainer.learn.ranks import Followers
from rft_trainer.probe import AGREEMENT, SamplerProbe
from rft_trainer.rollout.engine import (
    AdapterVersion,
    Generated,
    Request,
    SamplingParameters,
    rollout_seed,
)
from rft_trainer.rollout.filter import Filter
from rft_trainer.rollout.routed import RoutedEngine
from rft_trainer.rollout.vllm_engine import VllmEngine
from rft_trainer.rollout.vllm_server import ServerOptions, VllmServer
from rft_trainer.runtime import models
from tests.trainer.vllm_support import sampler_processes

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def folder() -> Path:
    return models.resolve(models.EXAMPLE_MODEL)


@pytest.fixture(scope="module", params=WIDTHS)
def engine(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmEngine]:
    run_dir, temporary = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        patch.setattr(tempfile, "tempdir", str(temporary))
        yield from _engine(folder, run_dir, request.param)
    assert list(temporary.iterdir()) == []


def _engine(folder: Path, run_dir: Path, dtype: Dtype) -> Iterator[VllmEngine]:
    started = VllmEngine(
        ServerOptions(
            model=folder, context_length=1024, lora_rank=8, run_dir=run_dir, dtype=dtype,
            deterministic=dtype == "float32", adapter_slots=2,
        )
    )  # fmt: skip
    yield started
    started.close()
    assert not sampler_processes(run_dir)


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


@pytest.mark.parametrize("engine", ["float32"], indirect=True)
def test_deterministic_rollouts_do_not_depend_on_batches(engine: VllmEngine, requests: list[Request]) -> None:
    first = engine.generate(requests)
    for completion in first:
        assert len(completion.token_ids) == len(completion.logprobs)
        assert all(logprob <= 0 for logprob in completion.logprobs)
    assert engine.generate(list(reversed(requests))) == list(reversed(first))
    assert [alone for request in requests for alone in engine.generate([request])] == first
    assert engine.generate(requests[:3]) + engine.generate(requests[3:]) == first

    for request, whole in zip(requests, first, strict=True):
        token = whole.token_ids[len(whole.token_ids) // 2]
        stopping = replace(request.parameters, stop_token_ids=(token,))
        (found,) = engine.generate([replace(request, parameters=stopping)])
        assert found.token_ids == whole.token_ids[: whole.token_ids.index(token) + 1], "stop_token_ids"
        assert found.finish_reason == "stop"


@pytest.mark.parametrize("engine", ["float32"], indirect=True)
def test_deterministic_rollouts_of_long_conversations_do_not_depend_on_batches(
    engine: VllmEngine, requests: list[Request]
) -> None:
    short = replace(requests[0].parameters, max_tokens=4)
    long = [
        replace(request, prompt_token_ids=(request.prompt_token_ids * 40)[:600], parameters=short)
        for request in requests[::2]
    ]
    first = engine.generate(long)
    assert [alone for request in long for alone in engine.generate([request])] == first


LOGPROB_TOLERANCE: dict[str, float] = {"float32": 1e-3, "bfloat16": 0.1}
"""Largest allowed mean difference between log-probs of sampler and trainer, in nats, by dtype."""


def test_sampler_and_trainer_compute_the_same_log_probs(
    engine: VllmEngine, folder: Path, requests: list[Request]
) -> None:
    dtype = engine.server._options.dtype
    completions = engine.generate(requests)
    sampled = [logprob for completion in completions for logprob in completion.logprobs]
    computed = trainer_logprobs(folder, dtype, requests, completions)
    assert len(sampled) == len(computed) > len(requests)
    distance = statistics.fmean(abs(one - other) for one, other in zip(sampled, computed, strict=True))
    assert distance < LOGPROB_TOLERANCE[dtype]


def test_the_sampler_follows_two_probe_adapters(engine: VllmEngine, folder: Path, tmp_path: Path) -> None:
    dtype: Dtype = engine.server._options.dtype  # type: ignore[assignment]
    policy = Policy(PolicyOptions(folder, Training(), "cpu", dtype, 0))
    probe = SamplerProbe(policy, engine, Followers(1, "cpu", None), tmp_path, dtype, lambda: None)
    text = policy.tokenizer.encode("What is 12 + 30?")
    probe.before_training(text, SamplingParameters(0.7, 1.0, 40, 16), lambda: False)
    assert probe._last is not None
    apart = [abs(a - b) for a, b in zip(probe._last.trainer, probe._last.sampler, strict=True)]
    assert statistics.fmean(apart) < AGREEMENT[dtype]


def trainer_logprobs(
    folder: Path, dtype: str, requests: list[Request], completions: list[Generated]
) -> list[float]:
    """Return the trainer's log-prob of each sampled token, with the base model, in the completions' order."""
    policy = Policy(PolicyOptions(folder, Training(), "cpu", dtype, 0))
    found: list[float] = []
    for request, completion in zip(requests, completions, strict=True):
        packed = Completion(completion.token_ids, completion.logprobs, 0.0)
        batch = build([PackedRow(request.prompt_token_ids, (packed,))])
        settings = Filter(request.parameters.temperature, request.parameters.top_k, request.parameters.top_p)
        with torch.no_grad():
            computed = token_logprobs(policy.hidden(batch), batch.target_N, policy.head, settings)
        found += computed.filtered_N.tolist()
    return found


def test_vllm_gives_the_same_completions_for_a_merged_model(folder: Path, tmp_path: Path) -> None:
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
    parameters = SamplingParameters(0.0, 1.0, 0, 16)
    made = []
    for question in ("What is 12 + 30?", "Name a colour.", "Who wrote Faust?"):
        messages = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        made.append(Request(tuple(ids), 0, parameters))
    return made


def answers(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    """Return the token ids of each prompt's greedy completion, with the end token, as vLLM returns them."""
    made = []
    for prompt in prompts:
        written = model.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False)
        made.append(written[0, len(prompt) :].tolist())
    return made


def test_a_server_without_memory_for_its_cache_raises_with_the_reason_first(
    folder: Path, tmp_path: Path
) -> None:
    options = ServerOptions(
        model=folder, context_length=128, lora_rank=8, run_dir=tmp_path, kv_cache_bytes=2**50
    )
    with closing(VllmServer(options)) as server:
        server.start()
        with pytest.raises(
            SamplerError, match=r"^vLLM ended while starting: ValueError: Available memory on node"
        ):
            server.wait_until_ready()


@pytest.mark.long
def test_of_two_samplers_one_is_killed_and_the_completions_are_the_same(
    folder: Path, tmp_path: Path, requests: list[Request]
) -> None:
    options = ServerOptions(
        model=folder, context_length=128, lora_rank=8, run_dir=tmp_path, dtype="float32",
        deterministic=True, kv_cache_bytes=2**28,
    )  # fmt: skip
    made: list[VllmEngine] = []

    def start(number: int, stop: Callable[[], bool]) -> VllmEngine:
        made.append(VllmEngine(replace(options, number=number), stop))
        return made[-1]

    with closing(RoutedEngine(start, 2)) as engine:
        engine.wait_until_ready()
        first = engine.generate(requests)
        group = made[1].server.pid
        assert group is not None
        killed = threading.Timer(0.2, os.killpg, (group, signal.SIGKILL))
        killed.start()
        assert engine.generate(requests) == first
        killed.join()
        assert engine.generate(requests) == first
        text = list(requests[0].prompt_token_ids)
        assert engine.logprobs(text) == made[0].logprobs(text)
        engine.wait_until_ready()
        assert engine.restarts == 1
        assert made[0].restarts == 0
    assert not sampler_processes(tmp_path)


@pytest.mark.parametrize("engine", ["float32"], indirect=True)
def test_two_batches_have_an_adapter_each_in_one_server_and_keep_it_after_a_kill(
    engine: VllmEngine, folder: Path, tmp_path: Path, requests: list[Request]
) -> None:
    versions = [random_adapter(folder, tmp_path / f"v{number}", number) for number in (1, 2)]
    names = [version.name for version in versions]
    greedily = [replace(request, parameters=request.parameters.at(0)) for request in requests]

    def batch(name: str) -> list[Request]:
        return [replace(request, adapter=name) for request in greedily]

    alone = []
    for version in versions:
        engine.use_adapter(version)
        alone.append(engine.generate(greedily))
    assert alone[0] != alone[1]
    engine.use_adapter(versions[0])
    engine.use_adapter(versions[1], [versions[0]])
    with ThreadPoolExecutor(2) as threads:
        for killed in (False, True):
            calls = [threads.submit(engine.generate, batch(name)) for name in names]
            if killed:
                assert engine.server.pid is not None
                os.killpg(engine.server.pid, signal.SIGKILL)
            found = [call.result() for call in calls]
            assert [[one.token_ids for one in made] for made in found] == [
                [one.token_ids for one in made] for made in alone
            ]
    assert engine.restarts == 1


def random_adapter(folder: Path, target: Path, seed: int) -> AdapterVersion:
    """Save an adapter with random matrices, which changes what the model says."""
    base = AutoModelForCausalLM.from_pretrained(folder)
    adapted = get_peft_model(base, LoraConfig(r=8, target_modules=["q_proj", "v_proj"]))
    torch.manual_seed(seed)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    adapted.save_pretrained(str(target))
    return AdapterVersion(target.name, target)
