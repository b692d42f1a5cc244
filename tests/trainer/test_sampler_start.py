"""The start of a sampler.

The tests check the sampler's GPU memory, the time limit, the reason for a failed start, and later starts.
"""

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rft_api.status import Plan
from rft_planner.catalogue import CATALOGUE
from rft_planner.memory import USABLE
from rft_run.config import RunConfig
from rft_run.errors import SamplerError
from rft_trainer import engines
from rft_trainer.rollout import vllm_server
from rft_trainer.rollout.vllm_engine import VllmEngine
from rft_trainer.rollout.vllm_server import ServerOptions, VllmServer, cause, command, reap
from rft_trainer.setup import trainer_share
from tests.trainer.loop_support import config, with_spec

LOG = """\
(APIServer pid=7) INFO 11-29 12:00:00 [api_server.py:1] vLLM API server
(Worker_TP1 pid=9) ERROR 11-29 12:00:09 [multiproc_executor.py] torch.OutOfMemoryError: CUDA out of memory.
(EngineCore pid=8) ERROR 11-29 12:00:10 [core.py:1512] Exception: WorkerProc initialization failed due to an \
exception in a background process. See stack trace for root cause.
(APIServer pid=7) Traceback (most recent call last):
(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above.
"""


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (LOG, "torch.OutOfMemoryError: CUDA out of memory."),
        (
            "(EngineCore pid=8) ERROR [core.py:1] ValueError: Free memory on device cuda:0 (3/79 GiB)\n"
            "(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above.",
            "ValueError: Free memory on device cuda:0 (3/79 GiB)",
        ),
        ("(APIServer pid=7) ValueError: unknown option", "ValueError: unknown option"),
        ("RuntimeError: Engine core initialization failed. See root cause above.", ""),
        ("all is well", ""),
    ],
)
def test_the_reason_is_the_error_of_the_process_that_failed_first(log: str, reason: str) -> None:
    assert cause(log) == reason


def on_gpu(model: Path, run_dir: Path, plan: Plan | None, gpus: int = 1, **spec: Any) -> RunConfig:
    given = {"engine": "vllm", "maxTokens": 16, **spec}
    made = with_spec(config(model, run_dir), sampling=given)
    return made.model_copy(update={"device": "cuda", "gpus": gpus, "plan": plan})


SHAPE = CATALOGUE["Qwen/Qwen2.5-7B"]


def options_of(given: RunConfig, model: Path) -> ServerOptions:
    return engines._server_options(given, model, SHAPE, 128)


def test_on_a_gpu_the_sampler_gets_the_memory_of_the_plan_and_the_trainer_the_rest(tmp_path: Path) -> None:
    plan = Plan(
        gpus=1,
        device="cuda",
        dtype="bfloat16",
        trainer_gpus=1,
        sampler_gpus=1,
        sampler_memory_share=0.4,
        sampler_cache_memory="12345Mi",
    )
    given = on_gpu(tmp_path, tmp_path, plan)
    line = " ".join(command(options_of(given, tmp_path), tmp_path / "s"))
    assert f"--kv-cache-memory-bytes {12345 * 2**20}" in line
    assert "--gpu-memory-utilization 0.4" in line
    assert trainer_share(given) == pytest.approx(USABLE - 0.4)
    # Plans of older releases have no cache size.
    older = on_gpu(tmp_path, tmp_path, plan.model_copy(update={"sampler_cache_memory": None}))
    assert "--kv-cache-memory-bytes" not in command(options_of(older, tmp_path), tmp_path / "s")
    alone = plan.model_copy(update={"gpus": 2})
    own = options_of(on_gpu(tmp_path, tmp_path, alone, 2), tmp_path)
    assert own.kv_cache_bytes is None, "on its own GPUs vLLM chooses the size of its cache"
    # Even without a plan the trainer's memory is limited.
    unplanned = on_gpu(tmp_path, tmp_path, None)
    assert options_of(unplanned, tmp_path).gpu_memory_share == engines.UNPLANNED_SHARED
    assert trainer_share(unplanned) == pytest.approx(USABLE - engines.UNPLANNED_SHARED)


def test_the_trainer_has_a_gpu_of_its_own_where_the_roles_are_apart_or_the_sampler_is_in_its_process(
    tmp_path: Path,
) -> None:
    apart = Plan(gpus=2, dtype="bfloat16", trainer_gpus=1, sampler_gpus=1, sampler_memory_share=0.94)
    assert trainer_share(on_gpu(tmp_path, tmp_path, apart, 2)) is None
    in_turns = apart.model_copy(update={"trainer_gpus": 2, "sampler_gpus": 2, "sampler_memory_share": 0.5})
    assert trainer_share(on_gpu(tmp_path, tmp_path, in_turns, 2)) == pytest.approx(USABLE - 0.5)
    assert trainer_share(on_gpu(tmp_path, tmp_path, None, engine="transformers")) is None


def test_the_time_limit_of_a_start_follows_from_the_models_size_or_the_spec(
    tmp_path: Path,
) -> None:
    given = on_gpu(tmp_path, tmp_path, None)
    small, large = (
        engines.start_seconds(given, CATALOGUE[name])
        for name in ("Qwen/Qwen2.5-0.5B", "meta-llama/Llama-3.1-70B")
    )
    assert engines.START_SECONDS < small < 920
    assert 2200 < large < 2400
    own = on_gpu(tmp_path, tmp_path, None, startTimeoutSeconds=3600)
    assert engines.start_seconds(own, SHAPE) == 3600


def dying(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """Replace vLLM's server by a program that prints ``said``, an error of vLLM, and exits with code 1."""
    program = f"import os, sys; print({said!r}.format(pid=os.getpid())); sys.exit(1)"
    monkeypatch.setattr(vllm_server, "command", lambda _options, _uds: [sys.executable, "-c", program])


@pytest.mark.parametrize(
    ("said", "starts"),
    [
        ("(EngineCore pid=8) ERROR [core.py:1] ValueError: no such model", 2),
        ("(EngineCore pid=8) ERROR [core.py:1] ValueError: free memory {pid} GiB", 3),
    ],
)
def test_a_sampler_that_dies_while_starting_is_started_again_within_limits(
    said: str, starts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = "RuntimeError: Engine core initialization failed. See root cause above."
    dying(monkeypatch, f"{said}\n(APIServer pid=7) {last}")
    asked = ServerOptions(model=tmp_path, context_length=128, lora_rank=8, run_dir=tmp_path)
    with closing(VllmEngine(asked)) as engine:
        with pytest.raises(SamplerError) as failed:
            engine.wait_until_ready()
        assert engine.restarts == starts - 1
    assert str(failed.value).startswith("vLLM ended while starting: ValueError: ")
    assert "root cause" not in str(failed.value)
    assert (tmp_path / "logs" / "vllm.log").read_text().count(last) == starts


def test_each_of_several_samplers_has_its_own_log_and_only_its_own_processes_are_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = [sys.executable, "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr(vllm_server, "command", lambda _options, _uds: waiting)
    servers = [
        VllmServer(
            ServerOptions(model=tmp_path, context_length=128, lora_rank=8, run_dir=tmp_path, number=number)
        )
        for number in range(2)
    ]
    try:
        for server in servers:
            server.start()
        assert [server.log_file.name for server in servers] == ["vllm.log", "vllm-1.log"]
        servers[1].stop()
        assert servers[0].alive()
        servers[1].start()
        assert servers[0].alive()
        assert reap(tmp_path), "a new attempt must end all samplers of the last one"
    finally:
        for server in servers:
            server.close()
