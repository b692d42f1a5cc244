"""Finds the processes of vLLM servers, to test that no process of a server is left."""

from pathlib import Path

from rft_trainer.rollout.vllm_server import _MARKER


def sampler_processes(run_dir: Path) -> list[int]:
    """Return the PIDs of this run's samplers that are still alive. Zombies do not count."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"{_MARKER}={run_dir}".encode() in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
        except OSError:
            continue
    return found
