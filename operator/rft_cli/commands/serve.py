"""``rft serve``: serves an adapter by vLLM's OpenAI server, on this machine or in a cluster."""

import json
import os
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
import yaml

from rft_cli.commands.export import choose, refuse_both
from rft_cli.commands.source import ended_by_signals
from rft_cli.errors import UNREADABLE, UserError
from rft_cli.local.brought import run_config
from rft_cli.local.process import kill_group, killed_with_this_process
from rft_cli.local.snapshot import previous
from rft_cli.local.trainer import trainer_command
from rft_cli.options import BestCheckpoint, CheckpointStep, Context, Namespace, connect
from rft_cli.render.console import err, out, reports_errors, write
from rft_planner.accelerators import resource_of
from rft_run.config import RunConfig
from rft_run.folder import RunFolder, adapter_of

HOST = "127.0.0.1"
ALL_ADDRESSES = "::"
"""The server in a pod listens on all addresses, IPv6 and IPv4: a pod may have only an IPv6 address."""
POLL_SECONDS = 0.5
END_SECONDS = 30.0
"""Time in seconds that a server has to end after SIGTERM. After this time it is killed."""


@reports_errors
def serve(
    source: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A job, or a run's folder.")],
    step: CheckpointStep = None,
    best: BestCheckpoint = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8000,
    apply: Annotated[
        bool, typer.Option("--apply", help="For a job: apply the objects instead of printing them.")
    ] = False,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Serve base model and adapter by vLLM's OpenAI server, and print a request to try the server.

    For a run's folder, the server runs on this machine until Ctrl-C, at 127.0.0.1.

    For a job in the cluster, the command prints a Service and a Deployment, or with --apply applies both. The
    server in the Deployment reads the adapter from the job's volume. Both objects are deleted with the job.

    Exit code 1: there is no such job or adapter, or the server ended; 2: a folder cannot be read.
    """
    if Path(source).is_dir():
        _serve_here(Path(source), step, best, port)
        return
    if "/" in source:
        raise UserError(f"{source}: there is no such folder", UNREADABLE)
    refuse_both(step, best)
    cluster = connect(context, namespace)
    # Imported here, because the kubernetes client takes a second, which folders on this machine do not need.
    from rft_cli.cluster.reading_pod import FOLDER
    from rft_cli.cluster.serving import PORT, server_objects, service_name

    job = cluster.job(source)
    child = cluster.child_job(job)
    if child is None:
        raise UserError(
            f"{source}: its Job is deleted, so image and resources of a server are not known; serve it on"
            f" your machine: rft download {source}, then rft serve runs/{source}"
        )
    config = run_config(job, Path(FOLDER))
    adapter = adapter_on_volume(job, step, best, FOLDER)
    gpus = sampler_gpus(config)
    command = ["python", "-m", *module_arguments(config, adapter, ALL_ADDRESSES, PORT, gpus)]
    objects = server_objects(job, child, command, gpus, gpu_resource(config))
    name, where = service_name(job), config.job.namespace
    if apply:
        with cluster.applying() as applied:
            for body in objects:
                out().print(f"{body['kind']} {name} {applied(body)}")
    else:
        write(yaml.safe_dump_all(objects, sort_keys=False))
    err().print(f"When it is ready: kubectl port-forward -n {where} service/{name} {port}:{PORT}, and then")
    err().print(request(config.job.name, port))


def module_arguments(config: RunConfig, adapter: str, host: str, port: int, gpus: int) -> list[str]:
    """Return the arguments for ``python -m`` that start a vLLM server with an adapter: a module, its options.

    The Python interpreter must have the trainer's packages.

    - ``config``: the configuration of the run, with the base model
    - ``adapter``: the path of the adapter's folder
    - ``host``, ``port``: the address on which the server listens
    - ``gpus``: the number of GPUs of the server, 0 for the CPU
    """
    model, plan = config.spec.model, config.plan
    arguments = [
        "rft_trainer.serve", "--base", model.name, "--adapter", adapter, "--name", config.job.name,
        "--host", host, "--port", str(port), "--context-length", str(config.effective.max_context_length),
    ]  # fmt: skip
    if model.revision is not None:
        arguments += ["--revision", model.revision]
    if plan is not None and plan.dtype is not None:
        arguments += ["--dtype", plan.dtype]
    return [*arguments, "--gpus", str(gpus)]


def sampler_gpus(config: RunConfig) -> int:
    """Return the number of GPUs for a vLLM server: as many as one sampler of the run had.

    Return 0 if the run used the CPU, and 1 if the sampler's number of GPUs is not known.
    """
    plan = config.plan
    if config.device == "cpu":
        return 0
    if plan is None or plan.sampler_gpus is None:
        return 1
    return max(1, plan.sampler_gpus // (plan.sampler_servers or 1))


def gpu_resource(config: RunConfig) -> str:
    """Return the name of the extended resource by which the run's pod requests GPUs.

    An example is ``nvidia.com/gpu``. If the plan does not have the name, it depends on the kind of GPU.
    """
    plan = config.plan
    return (plan and plan.gpu_resource) or resource_of(plan.accelerator if plan is not None else None)


def adapter_on_volume(job: Mapping[str, Any], step: int | None, best: bool, folder: str) -> str:
    """Return the path of a job's adapter, as seen in a pod that mounts the run's folder at ``folder``.

    - With ``step``: the adapter in the checkpoint of this step. This checkpoint may not exist.
    - With ``best``: the adapter in the checkpoint with the highest held-out reward.
    - With neither: the final adapter. If there is none, the adapter in the newest checkpoint.

    ``job`` is the RFTJob with its status.

    Raises:
        UserError: if ``step`` is None, and the job's status names no such adapter.
    """
    name, output = job["metadata"]["name"], (job.get("status") or {}).get("output") or {}
    if step is not None:
        return str(adapter_of(RunFolder(Path(folder)).checkpoint_of(step)))
    if not best and output.get("adapter"):
        return str(RunFolder(Path(folder)).adapter)
    field = "bestCheckpoint" if best else "checkpoint"
    if not output.get(field):
        raise UserError(f"{name}: status.output.{field} is empty: no such adapter is saved yet")
    # Only the last part of the path is used, because the trainer could report any path.
    return str(adapter_of(RunFolder(Path(folder)).checkpoints / Path(output[field]).name))


def request(name: str, port: int) -> str:
    """Return a ``curl`` command, as text, that requests one completion from a server on this machine.

    - ``name``: the name of the served model with the adapter, as clients write it in the field ``model``
    - ``port``: the port of the server
    """
    body = {"model": name, "messages": [{"role": "user", "content": "What is 3 + 4?"}], "temperature": 0}
    address = f"http://{HOST}:{port}/v1/chat/completions"
    return f"curl {address} -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"


def _serve_here(folder: Path, step: int | None, best: bool, port: int) -> None:
    config = previous(folder)
    if config is None:
        raise UserError(
            f"{folder}: has no run.json, so its base model is not known; name the folder of a run"
            " or of a download",
            UNREADABLE,
        )
    chosen = choose(folder, step, best)
    # A downloaded run may have had GPUs that this machine lacks.
    from rft_cli.local.device import detect

    gpus = min(sampler_gpus(config), detect(config.spec.resources).gpus)
    python, *options, _ = trainer_command()
    arguments = module_arguments(config, str(chosen.folder.resolve()), HOST, port, gpus)
    out().print(f"starting vLLM with the adapter of {chosen.what}; Ctrl-C ends it")
    exit_code = _run_server([python, *options, *arguments], port, request(config.job.name, port))
    if exit_code:
        raise UserError(f"the server ended with exit code {exit_code}; its last lines above say why")


def _run_server(command: Sequence[str], port: int, said: str) -> int:
    """Run a vLLM server until it ends, and return its exit code.

    - ``command``: the command that starts the server
    - ``port``: the port of this machine on which the server listens
    - ``said``: a text that is printed when the server answers for the first time

    At SIGINT (Ctrl-C), SIGTERM or SIGHUP, end the server and return 0.

    Raises:
        UserError: if another process listens on the port already. It would answer in place of the server.
    """
    if _is_taken(port):
        raise UserError(f"--port {port}: another process listens on it; name another port")
    try:
        with ended_by_signals(), _running(command) as process:
            while process.poll() is None:
                with suppress(httpx.HTTPError):
                    answer = httpx.get(f"http://{HOST}:{port}/health", trust_env=False)
                    if answer.status_code == httpx.codes.OK:
                        out().print(said)
                        return process.wait()
                time.sleep(POLL_SECONDS)
            return process.returncode
    except KeyboardInterrupt:
        return 0


def _is_taken(port: int) -> bool:
    """Return whether a process accepts connections on ``port`` of this machine, at 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


@contextmanager
def _running(command: Sequence[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a vLLM server by ``command``, and yield its process.

    At the end of the ``with`` block, end all processes of the server, and remove its temporary files. If
    ``rft`` itself is killed, the processes of the server end too, but the temporary files stay.
    """
    # vLLM leaves sockets and a rendezvous file in TMPDIR, also after SIGTERM. The name is short, because the
    # path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="rft-") as temporary:
        environment = {**os.environ, "TMPDIR": temporary}
        # The server has its own process group, so that a signal of the terminal reaches only this process,
        # which then ends the server.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, env=environment)
        try:
            with killed_with_this_process(process):
                try:
                    yield process
                finally:
                    process.terminate()
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(END_SECONDS)
        finally:
            kill_group(process)
            process.wait()
