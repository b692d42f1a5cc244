"""Owns the vLLM server: starts it, waits until it answers, ends it, and leaves nothing behind.

Flags are chosen so that the sampler's log-probabilities are those of the distribution it drew from, and so
that seeded requests repeat; docs/how-a-run-works.md says where they do.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from rft_planner.host import CPU_CACHE_BLOCK
from rft_planner.memory import SLOT_RANKS
from rft_trainer import allocator, machine
from rft_trainer.errors import Preempted, SamplerError
from rft_trainer.rollout import guard

BASE_NAME = "base"
"""Name under which the server offers the model without an adapter."""
_IN_THE_ENGINE = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""By its name: of "uni" vLLM makes "mp" on the CPU, to set OpenMP's environment, which is set here."""
_MARKER = "RFT_SAMPLER_OF"
_START_SECONDS = 900.0
_END_SECONDS = 30.0
"""How long a killed process may take to give its memory back."""


@dataclass(frozen=True)
class ServerOptions:
    """What a server is started with. ``context_length`` in tokens; ``kv_cache_bytes`` is for the CPU."""

    model: Path
    context_length: int
    lora_rank: int
    run_dir: Path
    scratch_dir: Path | None = None
    device: str = "cpu"
    dtype: str = "bfloat16"
    seed: int = 0
    max_sequences: int = 128
    kv_cache_bytes: int = 2**30
    tensor_parallel: int = 1
    gpu_memory_share: float = 0.9
    visible_devices: str | None = None
    adapter_slots: int = 1
    adapted: tuple[str, ...] = ()
    """Names of the layers that adapters change; empty: any that vLLM can adapt, each with a buffer."""
    deterministic: bool = False


class VllmServer:
    """One server process group. Not thread-safe; ``start`` may be called again after a death."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="rft-", dir=options.scratch_dir))
        self.socket = self._folder / "vllm.sock"
        self.api_key = secrets.token_urlsafe(24)
        self.log_file = options.run_dir / "logs" / "vllm.log"

    def start(self) -> None:
        """Start the process; ``wait_until_ready`` says when it can be used."""
        reap(self._options.run_dir)
        self.socket.unlink(missing_ok=True)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, guard.__file__, *command(self._options, self.socket)],
                # A killed vLLM leaves its sockets and rendezvous files: in a folder that goes with ours.
                env=environment(self._options) | {"VLLM_API_KEY": self.api_key, "TMPDIR": str(self._folder)},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int | None:
        """Process group of the server, where it was started."""
        return self._process.pid if self._process else None

    def alive(self) -> bool:
        """Whether the process is still there."""
        return self._process is not None and self._process.poll() is None

    def wait_until_ready(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Return once the server answers.

        Raises SamplerError with the end of its log when it dies or takes too long, Preempted on demand.
        """
        deadline = time.monotonic() + _START_SECONDS
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.socket)), timeout=5) as client:
            while time.monotonic() < deadline:
                if should_stop():
                    raise Preempted("asked to stop while vLLM was starting")
                if not self.alive():
                    raise SamplerError(f"vLLM ended while starting:\n{self.log_tail()}")
                with suppress(httpx.TransportError):
                    if (
                        _listens(self.socket)
                        and client.get("http://vllm/health").status_code == httpx.codes.OK
                    ):
                        return
                time.sleep(0.2)
        raise SamplerError(f"vLLM did not answer within {_START_SECONDS:.0f} s:\n{self.log_tail()}")

    def log_tail(self, lines: int = 20) -> str:
        """Last lines of the server's log."""
        try:
            return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"

    def stop(self) -> None:
        """Kill the whole group; what it holds in memory is of no use to anyone."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            if self._process.stdin:
                self._process.stdin.close()
            self._process = None
        # The next one must not start while this one's memory is still held.
        deadline = time.monotonic() + _END_SECONDS
        while reap(self._options.run_dir) and time.monotonic() < deadline:
            time.sleep(0.05)

    def close(self) -> None:
        """Stop and remove the socket's folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _listens(path: Path) -> bool:
    """Whether someone accepts connections. Asked first: httpx leaks a socket with each refused one."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def command(options: ServerOptions, uds: Path) -> list[str]:
    """Command line of the server. By module: the CPU build's distribution breaks the ``vllm`` script."""
    rank = next(rank for rank in SLOT_RANKS if rank >= options.lora_rank)
    arguments: dict[str, object] = {
        "model": options.model,
        "served-model-name": BASE_NAME,
        "uds": uds,
        "dtype": options.dtype,
        "seed": options.seed,
        "max-model-len": options.context_length,
        "max-num-seqs": options.max_sequences,
        "max-lora-rank": rank,
        "max-loras": options.adapter_slots,
        "max-cpu-loras": options.adapter_slots + 1,
        # The default ignores temperature and top-k: importance ratios would be biased.
        "logprobs-mode": "processed_logprobs",
        # Otherwise the model's generation_config.json adds its own top-p and penalties.
        "generation-config": "vllm",
    }
    flags = ["--enable-lora", "--no-enable-log-requests", "--disable-uvicorn-access-log"]
    if options.device == "cpu":
        # The CPU engine dies of a seeded request whose prompt it prefills in chunks.
        flags.append("--no-enable-chunked-prefill")
        arguments["max-num-batched-tokens"] = max(options.context_length, 2048)
        # With the CPU's default of 128 short prompts are never cached, and rollouts share theirs.
        arguments["block-size"] = CPU_CACHE_BLOCK
        # By default a third process does the engine's work, which takes 430 MiB and a third of the start.
        arguments["distributed-executor-backend"] = _IN_THE_ENGINE
        # tcmalloc fills what it hands out with zeros, so all of it is in memory from the start.
        arguments["kv-cache-memory-bytes"] = options.kv_cache_bytes
    else:
        arguments["tensor-parallel-size"] = options.tensor_parallel
        arguments["gpu-memory-utilization"] = options.gpu_memory_share
    if options.adapted:
        flags += ["--lora-target-modules", *options.adapted]
    if options.deterministic:
        flags.append("--no-enable-prefix-caching")
    pairs = [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *pairs, *flags]


def environment(options: ServerOptions) -> dict[str, str]:
    """Environment of the server: the trainer's, plus what the device needs."""
    variables = dict(os.environ) | {
        _MARKER: str(options.run_dir),
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }
    if options.device != "cpu":
        if options.visible_devices is not None:
            variables["CUDA_VISIBLE_DEVICES"] = options.visible_devices
        return variables
    # It would win over the argument, and counts whole gibibytes.
    variables.pop("VLLM_CPU_KVCACHE_SPACE", None)
    # Sampling would be compiled at the first request, which needs a C++ compiler wherever a trainer runs.
    variables["TORCHDYNAMO_DISABLE"] = "1"
    # What vLLM would tell a worker process. Pinning would crowd pods that share a node onto the same cores.
    variables |= {"OMP_NUM_THREADS": str(machine.usable_cores()), "KMP_BLOCKTIME": "5", "KMP_TPAUSE": "0"}
    if options.deterministic:
        # With more than AVX2 oneDNN's kernels round a row differently among 1, 3 or 24: a request's log-probs
        # would depend on which others arrived with it, and on which are sent again after a death.
        variables["ONEDNN_MAX_CPU_ISA"] = "AVX2"
    preloads = preload_libraries()
    if preloads:
        others = os.environ.get("LD_PRELOAD", "").split(":")
        variables["LD_PRELOAD"] = ":".join(dict.fromkeys([*preloads, *filter(None, others)]))
    return variables


def preload_libraries() -> list[str]:
    """libiomp5 and tcmalloc, where they are installed: the CPU's LoRA path gains a half by them."""
    openmp = Path(sys.prefix) / "lib" / "libiomp5.so"
    return [str(found) for found in (openmp, allocator.library()) if found is not None and found.exists()]


def reap(run_dir: Path) -> list[int]:
    """Kill every process that an earlier sampler of this run left, and return their numbers."""
    wanted = f"{_MARKER}={run_dir}".encode()
    killed = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0") and int(folder.name) != os.getpid():
                os.kill(int(folder.name), signal.SIGKILL)
                killed.append(int(folder.name))
        except (OSError, ValueError):
            continue  # gone already, or not ours to look at
    return killed
