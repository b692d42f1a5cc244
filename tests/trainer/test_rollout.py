"""The sampler: its requests, the parsing of its responses, the start and the end of its process."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from rft_run.errors import ConfigurationError
from rft_trainer.rollout import guard
from rft_trainer.rollout.engine import ConnectionLost, Request, SamplingParameters, rollout_seed
from rft_trainer.rollout.stops import split_stops
from rft_trainer.rollout.transformers_engine import TransformersEngine
from rft_trainer.rollout.vllm_client import parse_answer, request_body
from rft_trainer.rollout.vllm_entry import ENTRY_MODULES, entry_module_in
from rft_trainer.rollout.vllm_server import (
    _MARKER,
    ServerOptions,
    command,
    environment,
    no_batch_invariance,
    reap,
)
from rft_trainer.runtime import machine


def body(**changes: Any) -> dict[str, Any]:
    parameters = SamplingParameters(
        **{"temperature": 0.7, "top_p": 1.0, "top_k": 40, "max_tokens": 16} | changes
    )
    return request_body("v000001", Request((1, 2), 7, parameters))


def options(tmp_path: Path, **changes: Any) -> ServerOptions:
    return ServerOptions(model=tmp_path, context_length=4096, lora_rank=4, run_dir=tmp_path, **changes)


def test_each_rollout_is_a_request_with_its_own_seed() -> None:
    sent = body()
    assert (sent["n"], sent["seed"], sent["prompt"], sent["logprobs"]) == (1, 7, [1, 2], 0)
    assert (sent["top_k"], sent["top_p"], sent["return_token_ids"]) == (40, 1.0, True)


def test_top_p_zero_is_sent_as_top_k_one() -> None:
    sent = body(top_p=0.0)
    assert (sent["top_k"], sent["top_p"]) == (1, 1.0)


def test_greedy_requests_have_neither_top_k_nor_top_p() -> None:
    sent = request_body("base", Request((1,), 0, SamplingParameters(0.0, 1.0, 0, 16)))
    assert "top_k" not in sent
    assert "top_p" not in sent
    assert sent["temperature"] == 0


def with_turn_token(folder: Path) -> Any:
    kind: Any = AutoTokenizer
    tokenizer = kind.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>", "<|turn|>2"]})
    return tokenizer


def test_a_stop_text_that_is_a_special_token_is_sent_as_its_id(character_model: Path) -> None:
    tokenizer = with_turn_token(character_model)
    stops = split_stops(["7", "<|turn|>", "<end>", "<turn>"], tokenizer)
    assert stops.texts == ("7", "<turn>")
    assert stops.token_ids == (tokenizer.convert_tokens_to_ids("<|turn|>"), tokenizer.eos_token_id)
    assert split_stops(None, tokenizer) == ((), ())
    sent = body(stop=stops.texts, stop_token_ids=stops.token_ids)
    assert (sent["stop"], sent["stop_token_ids"]) == (["7", "<turn>"], list(stops.token_ids))
    assert not {"stop", "stop_token_ids"} & set(body())


@pytest.mark.parametrize(
    ("text", "corrected"),
    [("<|turn|>\n", "<|turn|>"), ("a<end>", "<end>"), ("<|turn|>23", "<|turn|>2")],
)
def test_a_stop_text_with_a_special_token_inside_is_refused(
    text: str, corrected: str, character_model: Path
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        split_stops(["7", text], with_turn_token(character_model))
    assert str(refused.value).startswith(f"spec.sampling.stop[1]: {text!r}")
    assert str(refused.value).endswith(f"for instance {corrected!r}")


def test_a_token_that_stops_ends_the_completion_and_stays_in_it(character_model: Path) -> None:
    engine = TransformersEngine(character_model, "cpu", "float32")
    parameters = SamplingParameters(1.0, 1.0, 0, 24)
    requests = [Request((3, 4), seed, parameters) for seed in range(4)]
    for request, whole in zip(requests, engine.generate(requests), strict=True):
        token = whole.token_ids[len(whole.token_ids) // 2]
        length = whole.token_ids.index(token) + 1
        stopping = replace(parameters, stop_token_ids=(token,))
        (found,) = engine.generate([replace(request, parameters=stopping)])
        assert (found.token_ids, found.finish_reason) == (whole.token_ids[:length], "stop")


def test_seeds_depend_on_every_part_and_are_reproducible() -> None:
    seeds = {rollout_seed(0, step, row, rollout) for step in (1, 2) for row in (1, 2) for rollout in range(4)}
    assert len(seeds) == 16
    assert rollout_seed(0, 1, 11) != rollout_seed(0, 11, 1)
    assert rollout_seed(0, 1, 2, 3) == rollout_seed(0, 1, 2, 3)


def test_a_completion_does_not_depend_on_other_requests_of_its_batch(character_model: Path) -> None:
    engine = TransformersEngine(character_model, "cpu", "float32")
    requests = mixed_requests()
    together = engine.generate(requests)
    for request, found in zip(requests, together, strict=True):
        (alone,) = engine.generate([request])
        assert (found.token_ids, found.text, found.finish_reason) == (
            alone.token_ids,
            alone.text,
            alone.finish_reason,
        )
        assert found.logprobs == pytest.approx(alone.logprobs, abs=1e-5)
    assert {found.finish_reason for found in together} == {"stop", "length"}


def test_a_prompt_is_computed_once_and_finished_completions_leave_the_batch(character_model: Path) -> None:
    engine = TransformersEngine(character_model, "cpu", "float32")
    shapes: list[tuple[int, ...]] = []
    engine._model.register_forward_pre_hook(
        lambda _module, _positional, named: shapes.append(tuple(named["input_ids"].shape)), with_kwargs=True
    )
    requests = mixed_requests()
    found = engine.generate(requests)
    assert shapes[0] == (len({request.prompt_token_ids for request in requests}), 5)
    # The last token of a completion is never an input.
    assert sum(rows for rows, width in shapes[1:]) == sum(len(one.token_ids) - 1 for one in found)


def mixed_requests() -> list[Request]:
    """Return requests with different prompts, lengths and sampling parameters. Some have stop texts."""
    ways = (
        SamplingParameters(1.0, 1.0, 0, 24),
        SamplingParameters(0.7, 0.9, 5, 12),
        SamplingParameters(1.0, 1.0, 8, 24, stop=("7",)),
        SamplingParameters(0.0, 1.0, 0, 6),
    )
    prompts = ((3, 4), (5, 6, 7, 8, 9), (8, 9, 10))
    return [
        Request(prompt, rollout_seed(0, 1, row, number), parameters)
        for number, parameters in enumerate(ways)
        for row, prompt in enumerate(prompts)
        for _ in range(2)
    ]


def test_an_aborted_request_raises_connection_lost() -> None:
    choice = {"token_ids": [5], "text": "x", "logprobs": {"token_logprobs": [-0.5]}, "finish_reason": "abort"}
    with pytest.raises(ConnectionLost):
        parse_answer({"choices": [choice]})
    read = parse_answer({"choices": [{**choice, "finish_reason": "length"}]})
    assert (read.token_ids, read.logprobs, read.truncated) == ((5,), (-0.5,), True)


def test_the_cpu_server_has_no_chunked_prefill_and_processed_log_probs(tmp_path: Path) -> None:
    line = " ".join(command(options(tmp_path), tmp_path / "s"))
    for wanted in (
        "--no-enable-chunked-prefill",
        "--max-num-batched-tokens 4096",
        "--max-model-len 4096",
        "--logprobs-mode processed_logprobs",
        "--max-lora-rank 8",
        "--generation-config vllm",
    ):
        assert wanted in line


@pytest.mark.parametrize("module", ENTRY_MODULES)
def test_the_server_is_started_by_the_module_that_the_installed_vllm_has(tmp_path: Path, module: str) -> None:
    newer = ENTRY_MODULES[: ENTRY_MODULES.index(module)]
    for name in ENTRY_MODULES:
        if name not in newer:
            file = tmp_path.joinpath(*name.split(".")[1:]).with_suffix(".py")
            file.parent.mkdir(parents=True)
            file.touch()
    assert entry_module_in(tmp_path) == module


def test_the_installed_vllm_is_not_started_by_a_deprecated_module(tmp_path: Path) -> None:
    assert command(options(tmp_path), tmp_path / "s")[1:3] == ["-m", ENTRY_MODULES[0]]


def test_the_sampler_uses_all_allowed_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "affine_cores", lambda: 3)
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    assert environment(options(tmp_path))["OMP_NUM_THREADS"] == "3"
    assert environment(replace(options(tmp_path), deterministic=True))["OMP_NUM_THREADS"] == "1"
    monkeypatch.setattr(machine, "cpu_quota", lambda: 2.0)
    assert environment(options(tmp_path))["OMP_NUM_THREADS"] == "2"
    monkeypatch.setattr(machine, "cpu_quota", lambda: 0.5)
    assert environment(options(tmp_path))["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    ("said", "used"),
    [("1", "1"), ("2,1", "2"), ("8", "3"), ("0", "3"), ("-1", "3"), ("many", "3"), ("", "3")],
)
def test_the_sampler_uses_at_most_the_threads_of_omp_num_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, used: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    monkeypatch.setattr(machine, "affine_cores", lambda: 3)
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    assert environment(options(tmp_path))["OMP_NUM_THREADS"] == used


def test_a_deterministic_run_on_gpus_asks_for_batch_invariance(tmp_path: Path) -> None:
    asked = environment(options(tmp_path, device="cuda", deterministic=True))
    assert asked["VLLM_BATCH_INVARIANT"] == "1"
    assert "VLLM_BATCH_INVARIANT" not in environment(options(tmp_path, device="cuda"))


@pytest.mark.parametrize(
    ("version", "capability", "said"),
    [
        ("0.32.0", (8, 0), None),
        ("0.33.1rc1", (9, 0), None),
        ("1.0", (10, 0), None),
        ("0.31.9", (9, 0), "older than 0.32"),
        ("0.32.0", (7, 5), "compute capability 7.5 is less than 8.0"),
    ],
)
def test_batch_invariance_needs_a_version_and_a_capability(
    version: str, capability: tuple[int, int], said: str | None
) -> None:
    reason = no_batch_invariance(version, capability)
    assert reason is None if said is None else said in str(reason)


def test_the_sampler_ends_with_the_trainer_even_after_sigkill(tmp_path: Path) -> None:
    child = "import subprocess; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    trainer = (
        "import subprocess,sys\n"
        f"p = subprocess.Popen([sys.executable, {guard.__file__!r}, sys.executable, '-c', {child!r}],"
        " stdin=subprocess.PIPE, start_new_session=True)\n"
        "p.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", trainer], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        grandchild = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        assert _ends(grandchild)


def test_processes_of_earlier_samplers_of_this_run_are_killed(tmp_path: Path) -> None:
    environ = {**os.environ, _MARKER: str(tmp_path)}
    with subprocess.Popen(["sleep", "60"], env=environ) as mine, subprocess.Popen(["sleep", "60"]) as other:
        _until(lambda: reap(tmp_path) == [mine.pid])
        assert mine.wait() == -signal.SIGKILL
        assert other.poll() is None
        other.kill()


def _ends(pid: int) -> bool:
    def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        except FileNotFoundError:
            return True

    _until(gone)
    return gone()


def _until(holds: Any, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
