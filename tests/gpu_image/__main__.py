"""Tests the command lines with which the trainer starts vLLM. The vLLM in the image parses each of them.

    python -m tests.gpu_image

No GPU is needed. Run the program with the Python of the image's environment, and with this project on its
path. The program builds a stub of NVIDIA's driver library, and starts itself again with this stub.
"""

import importlib
import os
import shutil
import sys
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rft_trainer.rollout.vllm_entry import vllm_folder
from rft_trainer.rollout.vllm_server import ServerOptions
from tests.gpu_image.lines import arguments, server_options
from tests.gpu_image.stub import build

_STUBBED = "RFT_STUBBED_LIBCUDA"
_PLATFORM = "NonNvmlCudaPlatform"
PACKAGES = ("vllm", "torch", "transformers", "peft", "triton")


def start_again(folder: Path) -> None:
    """Replace this process by a new one whose dynamic loader finds the stub library first."""
    vllm = vllm_folder()
    if vllm is None:
        raise SystemExit("vLLM is not installed for this Python: use the Python of the image's environment")
    build(folder, vllm.rglob("*.so"))
    paths = [str(folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    environment = os.environ | {_STUBBED: str(folder), "LD_LIBRARY_PATH": ":".join(paths)}
    # The loader reads LD_LIBRARY_PATH only when a process starts.
    os.execve(sys.executable, [sys.executable, "-m", "tests.gpu_image"], environment)


def parser() -> tuple[Any, Any]:
    """Return the parser of vLLM's command line, and the function that checks the parsed arguments.

    The parser is that of a machine with NVIDIA GPUs.
    """
    platforms: Any = importlib.import_module("vllm.platforms")
    cuda: Any = importlib.import_module("vllm.platforms.cuda")
    platforms._current_platform = getattr(cuda, _PLATFORM)()
    try:
        arguments_of: Any = importlib.import_module("vllm.entrypoints.launchers.cli_args")
    except ModuleNotFoundError:
        arguments_of = importlib.import_module("vllm.entrypoints.openai.cli_args")
    flexible: Any = importlib.import_module("vllm.utils.argparse_utils").FlexibleArgumentParser
    return arguments_of.make_arg_parser(flexible()), arguments_of.validate_parsed_serve_args


def differences(options: ServerOptions, engine: object) -> dict[str, tuple[object, object]]:
    """Return the settings that vLLM parsed to another value than the trainer wanted, by name.

    Each setting has two values: the wanted one from ``options``, and the parsed one from ``engine``.
    """
    wanted = {
        "model": str(options.model),
        "dtype": options.dtype,
        "max_model_len": options.context_length,
        "tensor_parallel_size": options.tensor_parallel,
        "gpu_memory_utilization": options.gpu_memory_share,
        "kv_cache_memory_bytes": options.kv_cache_bytes,
        "enable_lora": True,
        "logprobs_mode": "processed_logprobs",
        "generation_config": "vllm",
        "enable_prefix_caching": False if options.deterministic else None,
    }
    taken = {name: getattr(engine, name) for name in wanted}
    return {name: (wanted[name], taken[name]) for name in wanted if wanted[name] != taken[name]}


def check() -> int:
    """Parse every command line, and print those that vLLM refused or misunderstood. Return the exit
    status.
    """
    server, validate = parser()
    engine_arguments: Any = importlib.import_module("vllm.engine.arg_utils").AsyncEngineArgs
    parsed, faults = 0, Counter[str]()
    for options in server_options():
        try:
            namespace = server.parse_args(arguments(options))
            validate(namespace)
        except (SystemExit, Exception) as error:
            faults[f"refused: {type(error).__name__}: {error}"] += 1
            continue
        parsed += 1
        for name, (wanted, taken) in differences(options, engine_arguments.from_cli_args(namespace)).items():
            faults[f"{name}: {wanted!r} became {taken!r}"] += 1
    print(", ".join(f"{name} {version(name)}" for name in PACKAGES))
    print(f"{parsed} command lines parsed by vLLM for GPUs, {faults.total()} faults")
    for fault, count in faults.most_common():
        print(f"  {count} x {fault}")
    return 1 if faults or not parsed else 0


def main() -> int:
    """Start this program again with the stub library. In the new process, return the status of ``check``."""
    if _STUBBED not in os.environ:
        start_again(Path(tempfile.mkdtemp(prefix="rft-libcuda-")))
    try:
        return check()
    finally:
        shutil.rmtree(os.environ[_STUBBED])


if __name__ == "__main__":
    sys.exit(main())
