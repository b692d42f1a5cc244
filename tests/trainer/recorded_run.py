"""``python -m tests.trainer.recorded_run --config FILE``: runs the trainer and records requests to vLLM.

The trainer runs in its own process, as in a pod. There it can make waiting OpenMP threads sleep, which works
only before torch is imported. In the process of pytest, torch is already imported.
"""

import sys
from pathlib import Path

from rft_trainer import __main__ as trainer
from rft_trainer.rollout import vllm_server
from rft_trainer.rollout.vllm_server import ServerOptions

_plain = vllm_server.command


def _recording(options: ServerOptions, uds: Path) -> list[str]:
    return [*_plain(options, uds), "--middleware", "tests.trainer.record_requests.RecordRequests"]


if __name__ == "__main__":
    vllm_server.command = _recording
    sys.exit(trainer.main())
