"""``python -m rft_trainer.serve``: serves a base model and a LoRA adapter with vLLM's OpenAI server.

    python -m rft_trainer.serve --base NAME [--revision REV] --adapter DIR --name NAME --host HOST --port PORT
        --context-length TOKENS [--dtype bfloat16] [--gpus N]

``rft serve`` runs this module, on this machine or in a cluster. The server has the same options as the
sampler of a training run. So a greedy completion of the server has the same tokens as in the run. The process
of this module becomes the server.
"""

import argparse
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

from rft_api.parameters import Dtype
from rft_planner.host import kv_cache
from rft_planner.modelconfig import UnreadableConfig, from_config
from rft_planner.precision import WIDTHS
from rft_run import run_files
from rft_run.adapter_config import config_problem
from rft_run.errors import ModelError, first_line
from rft_run.folder import adapter_config_of
from rft_trainer.rollout.vllm_server import ServerOptions, command_of, environment
from rft_trainer.runtime.models import resolve

EVERYWHERE = "::"
"""The value of ``--host`` that stands for all IPv6 and IPv4 addresses of this machine."""
_IPV4_ONLY = "0.0.0.0"  # noqa: S104 - in a pod, behind its Service
_SERVER_SEQUENCES = 32
_CPU_CACHE_BYTES = 2**30
"""Size of the key-value cache on the CPU in bytes, if no request with the whole context needs more."""


class AdapterSettings(NamedTuple):
    """The values of a LoRA adapter's configuration file that the server needs."""

    rank: int
    revision: str | None
    """The commit of the base model with which the adapter was trained. None: the commit is not known."""


def settings_of(adapter: Path) -> AdapterSettings:
    """Read the LoRA rank and the base model's commit from the configuration file in an adapter's folder.

    Raises ModelError if the file cannot be read, or if the adapter cannot be served.
    """
    try:
        found = run_files.json_of(adapter_config_of(adapter))
        if problem := config_problem(found):
            raise ValueError(problem)
        revision = found.get("revision")
        return AdapterSettings(int(found["r"]), revision if isinstance(revision, str) else None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{adapter}: is not an adapter that can be served: {error}") from error


def options_of(
    base: Path, adapter: Path, rank: int, context_length: int, dtype: Dtype, gpus: int
) -> ServerOptions:
    """Return the options of a vLLM server for a base model and a LoRA adapter.

    - ``base``, ``adapter``: the folders of the base model and the adapter.
    - ``rank``: the LoRA rank of the adapter.
    - ``context_length``: the context of the server, in tokens. If it is greater than the model's context, the
      model's context is used.
    - ``gpus``: number of GPUs. 0: the server computes on the CPU.

    On GPUs vLLM chooses the size of the key-value cache.
    """
    cache = _CPU_CACHE_BYTES
    try:
        shape = from_config(run_files.json_value(run_files.content(base / "config.json", follow=True)))
        context_length = min(context_length, shape.context)
        cache = max(cache, int(kv_cache(shape, WIDTHS[dtype], context_length)))
    except UnreadableConfig:
        pass  # the planner does not know the model, but vLLM may know it
    return ServerOptions(
        model=base,
        context_length=context_length,
        lora_rank=rank,
        # The run's folder is not used here: a sampler of the run ends all servers with its folder when it
        # starts.
        run_dir=adapter,
        device="cuda" if gpus else "cpu",
        dtype=dtype,
        max_sequences=_SERVER_SEQUENCES,
        kv_cache_bytes=None if gpus else cache,
        tensor_parallel=max(1, gpus),
    )


def serving_command(
    options: ServerOptions, base: str, adapter: Path, name: str, host: str, port: int
) -> list[str]:
    """Return the command line of the vLLM server.

    ``base`` and ``name`` are the names with which requests select the base model or the adapter. ``adapter``:
    the folder of the adapter.
    """
    own: Mapping[str, object] = {
        "served-model-name": base, "lora-modules": f"{name}={adapter}", "host": host, "port": port,
    }  # fmt: skip
    return command_of(options, own)


def serving_environment(options: ServerOptions) -> dict[str, str]:
    """Return the environment variables of the vLLM server. Its clients may not load other adapters."""
    variables = environment(options)
    del variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"]
    return variables


def listening_host(host: str) -> str:
    """Return the address on which vLLM listens for the value ``host`` of ``--host``.

    Return ``host`` itself, with one exception: if ``host`` is ``::`` and this machine has no IPv6, return
    ``0.0.0.0`` (all IPv4 addresses), because vLLM cannot listen on ``::`` there.
    """
    if host != EVERYWHERE:
        return host
    try:
        with socket.socket(socket.AF_INET6) as probe:
            # A kernel may support IPv6 although the machine has no IPv6 address.
            probe.bind((EVERYWHERE, 0))
            both = not probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    except OSError:
        both = False
    return EVERYWHERE if both else _IPV4_ONLY


def prepared(argv: list[str] | None = None) -> tuple[list[str], dict[str, str]]:
    """Read this program's arguments. Return the command line and environment variables of the vLLM server.

    The base model is downloaded if it is missing. ``argv``: the arguments. None: those of the process. Raises
    ModelError, OSError and ValueError.
    """
    parser = argparse.ArgumentParser(prog="python -m rft_trainer.serve")
    parser.add_argument("--base", required=True, help="folder or hub id")
    parser.add_argument("--revision", help="revision of the base, if the adapter's configuration has none")
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--name", required=True, help="name of the adapter in requests")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--context-length", type=int, required=True, help="in tokens")
    parser.add_argument("--dtype", choices=list(WIDTHS), default="bfloat16")
    parser.add_argument("--gpus", type=int, default=0)
    given = parser.parse_args(argv)
    settings = settings_of(given.adapter)
    # The adapter's own commit comes first: if the job names a branch, the branch may have a newer commit now.
    # For a base model in a folder there is no commit.
    base = resolve(given.base, settings.revision or given.revision)
    options = options_of(base, given.adapter, settings.rank, given.context_length, given.dtype, given.gpus)
    host = listening_host(given.host)
    command = serving_command(options, given.base, given.adapter, given.name, host, given.port)
    return command, serving_environment(options)


def main() -> NoReturn:
    """Replace this process by the vLLM server. If the server cannot be started, print why and exit with 1."""
    try:
        command, variables = prepared()
    except (ModelError, OSError, ValueError) as error:
        print(first_line(error), file=sys.stderr)
        sys.exit(1)
    os.execve(command[0], command, variables)  # noqa: S606


if __name__ == "__main__":
    main()
