"""Starts a vLLM server, waits until the server answers, and stops it with all its processes and files.

The command line makes the server return log-probs of the distribution from which it samples. Requests with a
seed are reproducible in the cases that docs/how-a-run-works.md names.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from rft_planner.host import CPU_CACHE_BLOCK
from rft_planner.memory import SLOT_RANKS
from rft_run import run_files
from rft_run.errors import Preempted, SamplerError
from rft_trainer.rollout import guard
from rft_trainer.rollout.engine import BASE_NAME
from rft_trainer.rollout.vllm_entry import entry_module
from rft_trainer.runtime import allocator, machine

_IN_THE_ENGINE = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""vLLM's executor in the engine's process. On the CPU vLLM replaces the short name "uni" by "mp"."""
BATCH_INVARIANT_VERSION, BATCH_INVARIANT_CAPABILITY = (0, 32), (8, 0)
_MARKER, _NUMBER = "RFT_SAMPLER_OF", "RFT_SAMPLER_NUMBER"
_ERROR = r"\b((?:\w+\.)*\w+(?:Error|Exception): .+)"
_ERRORS = (re.compile(rf"\(Worker.*?{_ERROR}"), re.compile(rf"\(EngineCore\b.*?{_ERROR}"), re.compile(_ERROR))
"""Patterns of an error message in vLLM's log: of a worker process, of the engine process, of any process."""
_ELSEWHERE = re.compile(r"root cause|stack trace", re.IGNORECASE)
"""Matches an error message that does not say the cause, but refers to another error in the log."""
_END_SECONDS = 30.0
"""Maximum time in seconds to wait until killed processes have released their memory."""


@dataclass(frozen=True)
class ServerOptions:
    """Options of a vLLM server.

    - ``model``: the folder of the base model.
    - ``context_length``: length of the longest sequence, in tokens.
    - ``lora_rank``: the rank of the adapters.
    - ``run_dir``: the folder of the run, for the log file.
    - ``scratch_dir``: where a temporary folder for the socket is made. None: the system's temporary folder.
    - ``device``: "cpu" or "cuda".
    - ``max_sequences``: maximum number of requests that are decoded at the same time.
    - ``kv_cache_bytes``: the size of the key-value cache on each device, in bytes. On a GPU it may be None:
      then the cache gets what the model leaves of vLLM's share of the GPU's memory, ``gpu_memory_share``.
    - ``tensor_parallel``: number of GPUs over which the model is split.
    - ``gpu_memory_share``: vLLM's share of the memory of each GPU, from 0 to 1.
    - ``visible_devices``: the value of CUDA_VISIBLE_DEVICES for the server. None: the trainer's value.
    - ``adapter_slots``: number of adapters that requests may use at the same time.
    - ``deterministic``: whether a request's log-probs must not depend on the other requests of its batch.
    """

    model: Path
    context_length: int
    lora_rank: int
    run_dir: Path
    scratch_dir: Path | None = None
    device: str = "cpu"
    dtype: str = "bfloat16"
    seed: int = 0
    max_sequences: int = 128
    kv_cache_bytes: int | None = 2**30
    tensor_parallel: int = 1
    gpu_memory_share: float = 0.9
    visible_devices: str | None = None
    adapter_slots: int = 1
    number: int | None = None
    """Number of this sampler if a run has several, from 0. None: the run has one."""
    start_seconds: float = 900.0
    """Maximum time in seconds from the start of the server's process to the server's first answer."""
    adapted: tuple[str, ...] = ()
    """Names of the layers with adapters. Empty: vLLM allocates buffers for all layers that it can adapt."""
    deterministic: bool = False


class VllmServer:
    """A vLLM server in its own process group. If the server has died, ``start`` starts a new one.

    Only one thread at a time may call the methods, except ``alive``.
    """

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="rft-", dir=options.scratch_dir))
        self.socket = self._folder / "vllm.sock"
        self.api_key = secrets.token_urlsafe(24)
        name = f"vllm-{options.number}.log" if options.number else "vllm.log"
        self.log_file = options.run_dir / "logs" / name
        self._log_start = 0
        """Size of the log file in bytes when the current process started."""

    def start(self) -> None:
        """Start the server's process. The server can be used when ``wait_until_ready`` returns."""
        reap(self._options.run_dir, self._options.number)
        self.socket.unlink(missing_ok=True)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with run_files.writable(self.log_file) as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, guard.__file__, *command(self._options, self.socket)],
                # A killed vLLM leaves sockets and rendezvous files in TMPDIR; ``close`` removes this folder.
                env=environment(self._options) | {"VLLM_API_KEY": self.api_key, "TMPDIR": str(self._folder)},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int | None:
        """The id of the server's process group. None: the server was not started, or it was stopped."""
        return self._process.pid if self._process else None

    def alive(self) -> bool:
        """Whether the server's process still runs."""
        process = self._process  # read once: another thread may stop the server
        return process is not None and process.poll() is None

    def wait_until_ready(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Wait until the server answers.

        Raises:
            StartFailed: the server dies. The message contains the error in the server's log.
            SamplerError: the server takes too long.
            Preempted: ``should_stop`` returns True.
        """
        limit = self._options.start_seconds
        deadline = time.monotonic() + limit
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.socket)), timeout=5) as client:
            while time.monotonic() < deadline:
                if should_stop():
                    raise Preempted("asked to stop while vLLM was starting")
                if not self.alive():
                    raise StartFailed(f"vLLM ended while starting: {self.reason()}")
                with suppress(httpx.TransportError):
                    if (
                        _listens(self.socket)
                        and client.get("http://vllm/health").status_code == httpx.codes.OK
                    ):
                        return
                time.sleep(0.2)
        raise SamplerError(
            f"vLLM did not answer within {limit:.0f} s; spec.sampling.startTimeoutSeconds sets a longer"
            f" time:\n{self.log_tail()}"
        )

    def reason(self) -> str:
        """Return the error message with which the server ended, from its log.

        If the log has no error, return its last lines.
        """
        try:
            written = run_files.end(self.log_file, run_files.STATE_BYTES, self._log_start)
            found = cause(written.decode(errors="replace"))
        except (OSError, run_files.UnreadableFile):
            found = ""
        return f"{found} (logs/{self.log_file.name} has more)" if found else f"\n{self.log_tail()}"

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of the server's log."""
        try:
            return "\n".join(run_files.end(self.log_file).decode(errors="replace").splitlines()[-lines:])
        except (OSError, run_files.UnreadableFile):
            return "(no log)"

    def stop(self) -> None:
        """Kill the server's process group, and wait until its processes have ended.

        There is no clean shutdown, because the server has nothing to save.
        """
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            if self._process.stdin:
                self._process.stdin.close()
            self._process = None
        # Wait for the end of all its processes, as the next server needs their memory.
        deadline = time.monotonic() + _END_SECONDS
        while reap(self._options.run_dir, self._options.number) and time.monotonic() < deadline:
            time.sleep(0.05)

    def close(self) -> None:
        """Stop the server, and remove the temporary folder with its socket."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


class StartFailed(SamplerError):
    """Error: the vLLM server ended before its first answer."""


def cause(log: str) -> str:
    """Return the error message in a vLLM server's log that says why the server ended. "": there is none.

    The server starts an engine process, and the engine process starts workers. If a process ends with an
    error, the processes above it only report that another process ended. So the error of a worker is
    preferred to that of the engine. The error of the engine is preferred to that of the server.
    """
    for pattern in _ERRORS:
        found = [match[1] for line in log.splitlines() if (match := pattern.search(line))]
        said = [text for text in found if not _ELSEWHERE.search(text)]
        if said:
            return said[-1]
    return ""


def _listens(path: Path) -> bool:
    """Return whether a server accepts connections at the socket ``path``.

    httpx is not used for this, because it leaks a socket for each refused connection.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def command(options: ServerOptions, uds: Path) -> list[str]:
    """Return the command line of the vLLM server of a run, which answers on the Unix socket ``uds``."""
    return command_of(options, {"served-model-name": BASE_NAME, "uds": uds})


def command_of(options: ServerOptions, own: Mapping[str, object]) -> list[str]:
    """Return the command line of a vLLM server: of the sampler of a run, or of ``rft serve``.

    ``own``: vLLM options in which these two servers differ. A key is the option's name without ``--``.
    """
    rank = next(rank for rank in SLOT_RANKS if rank >= options.lora_rank)
    arguments: dict[str, object] = {
        "model": options.model,
        **own,
        "dtype": options.dtype,
        "seed": options.seed,
        "max-model-len": options.context_length,
        "max-num-seqs": options.max_sequences,
        "max-lora-rank": rank,
        "max-loras": options.adapter_slots,
        "max-cpu-loras": options.adapter_slots + 1,
        # The default returns log-probs without temperature and top-k, which would bias importance ratios.
        "logprobs-mode": "processed_logprobs",
        # Without this the model's generation_config.json sets a top-p and penalties of its own.
        "generation-config": "vllm",
    }
    flags = ["--enable-lora", "--no-enable-log-requests", "--disable-uvicorn-access-log"]
    if options.device == "cpu":
        # vLLM's CPU engine crashes on a seeded request whose prompt is prefilled in chunks.
        flags.append("--no-enable-chunked-prefill")
        arguments["max-num-batched-tokens"] = max(options.context_length, 2048)
        # Prefix caching works on whole blocks. With the CPU's default of 128 tokens short prompts would never
        # be cached, and each of a group's rollouts would compute the prompt again.
        arguments["block-size"] = CPU_CACHE_BLOCK
        # Without this vLLM starts a separate worker process. It takes 430 MiB and a third of the start time.
        arguments["distributed-executor-backend"] = _IN_THE_ENGINE
        # With tcmalloc all of the cache is resident from the start, because the memory is filled with zeros.
        arguments["kv-cache-memory-bytes"] = options.kv_cache_bytes
    else:
        arguments["tensor-parallel-size"] = options.tensor_parallel
        # vLLM refuses to start if less than this share is free. Without kv-cache-memory-bytes, the cache gets
        # the rest of the share, and memory that other processes take during the start counts as vLLM's own.
        arguments["gpu-memory-utilization"] = options.gpu_memory_share
        if options.kv_cache_bytes is not None:
            arguments["kv-cache-memory-bytes"] = options.kv_cache_bytes
    if options.adapted:
        flags += ["--lora-target-modules", *options.adapted]
    if options.deterministic:
        flags.append("--no-enable-prefix-caching")
    pairs = [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", entry_module(), *pairs, *flags]


def environment(options: ServerOptions) -> dict[str, str]:
    """Return the environment variables of the vLLM server.

    They are those of the trainer, variables by which ``reap`` finds the server, and variables for the device.
    """
    variables = dict(os.environ) | {
        _MARKER: str(options.run_dir),
        _NUMBER: "" if options.number is None else str(options.number),
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }
    if options.device != "cpu":
        if options.deterministic:
            # Else a request's log-probs depend on the other requests of its batch.
            variables["VLLM_BATCH_INVARIANT"] = "1"
        if options.visible_devices is not None:
            variables["CUDA_VISIBLE_DEVICES"] = options.visible_devices
        return variables
    # The variable would override --kv-cache-memory-bytes, and has whole gibibytes only.
    variables.pop("VLLM_CPU_KVCACHE_SPACE", None)
    # Without this torch compiles the sampling code at the first request, which needs a C++ compiler.
    variables["TORCHDYNAMO_DISABLE"] = "1"
    # The variables that vLLM sets for a worker process, but without pinning threads to cores, because pods
    # on the same node would be pinned to the same ones.
    variables |= {"OMP_NUM_THREADS": str(machine.usable_cores()), "KMP_BLOCKTIME": "5", "KMP_TPAUSE": "0"}
    if options.deterministic:
        # With AVX-512 oneDNN rounds a row differently in batches of 1, 3 or 24 rows. A request's log-probs
        # would depend on the other requests of its batch, which also change when some are sent again.
        variables["ONEDNN_MAX_CPU_ISA"] = "AVX2"
        # With several threads vLLM divides the attention of a request into parts, from about 90 tokens on.
        # The parts depend on the other requests of the batch, and so does the rounding of their sum.
        variables["OMP_NUM_THREADS"] = "1"
    preloads = preload_libraries()
    if preloads:
        others = os.environ.get("LD_PRELOAD", "").split(":")
        variables["LD_PRELOAD"] = ":".join(dict.fromkeys([*preloads, *filter(None, others)]))
    return variables


def no_batch_invariance(version: str, capability: tuple[int, int]) -> str | None:
    """Check whether vLLM's batch-invariant mode is available with LoRA on a GPU. None: it is available.

    Otherwise return the reason, as a text. In this mode, the log-probs of a request do not depend on the
    other requests of its batch. ``version``: the version of vLLM. ``capability``: the compute capability.

    The minimum version and compute capability are those in the documentation of vLLM 0.32.
    """
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < BATCH_INVARIANT_VERSION:
        needed = ".".join(map(str, BATCH_INVARIANT_VERSION))
        return f"vLLM {version} is older than {needed}"
    if capability < BATCH_INVARIANT_CAPABILITY:
        return f"the GPU's compute capability {capability[0]}.{capability[1]} is less than 8.0"
    return None


def preload_libraries() -> list[str]:
    """Return the paths of the installed libraries with which vLLM's server on the CPU should be started.

    They are libiomp5 and tcmalloc. With both, LoRA on the CPU is 1.5 times as fast.
    """
    openmp = Path(sys.prefix) / "lib" / "libiomp5.so"
    return [str(found) for found in (openmp, allocator.library()) if found is not None and found.exists()]


def reap(run_dir: Path, number: int | None = None) -> list[int]:
    """Kill all processes of a run's vLLM servers, also those that an earlier attempt has left behind.

    They are found by their environment variables. Return the PIDs of the killed processes. ``number``: kill
    only the processes of the sampler with this number. None: of all samplers.
    """
    wanted = {f"{_MARKER}={run_dir}".encode()}
    if number is not None:
        wanted.add(f"{_NUMBER}={number}".encode())
    killed = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found = (folder / "environ").read_bytes().split(b"\0")
            if wanted.issubset(found) and int(folder.name) != os.getpid():
                os.kill(int(folder.name), signal.SIGKILL)
                killed.append(int(folder.name))
        except (OSError, ValueError):
            continue  # ended already, or of another user
    return killed
