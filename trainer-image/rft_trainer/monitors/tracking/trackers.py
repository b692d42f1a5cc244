"""Starts all trackers of a run, sends them data and ends them.

After the start, calls from the training loop do not block and raise no errors.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any, Self

from rft_api.status import RunStatus
from rft_run.config import RunConfig
from rft_run.errors import ConfigurationError
from rft_run.exit_codes import ExitCode
from rft_run.report import Ending
from rft_run.steps import StepRecord
from rft_trainer.evaluate import RowScores
from rft_trainer.monitors.tracking.flat import hyperparameters, numbers
from rft_trainer.monitors.tracking.protocol import End, RunInfo
from rft_trainer.monitors.tracking.sender import QUEUE_LENGTH, Sender

FINISH_SECONDS = 120.0
"""Maximum time in seconds for the end of a complete run.

In this time all trackers together send their queues and the adapter.
"""
FINISH_SECONDS_OTHERWISE = 20.0
"""Maximum time in seconds for all trackers together at the end of a run that is not complete.

It is short, because a pod that is being deleted has little time.
"""

LEAST_SECONDS = 1.0


class Trackers:
    """All tracking backends that ``spec.tracking`` names."""

    def __init__(self, config: RunConfig | None = None, sender: Callable[[str], Sender] = Sender) -> None:
        """Check that the library of every tracking backend is installed. Raises ConfigurationError."""
        self._config = config
        self._targets = targets(config)
        self._sender = sender
        self._senders: list[Sender] = []
        require_libraries(list(self._targets))

    def __enter__(self) -> Self:
        """Return the trackers themselves. Their processes start only in ``start``."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the tracking processes that ``finish`` has not ended."""
        for sender in self._senders:
            sender.kill()

    def start(self, resumed_from: int, attempt: int, records: Sequence[StepRecord] = ()) -> None:
        """Open the run in every tracking backend.

        - ``resumed_from``: the step of the checkpoint. 0: there is no checkpoint.
        - ``attempt``: the number of the attempt.
        - ``records``: the steps of earlier attempts. They are sent again, because a backend may have been
          unreachable before. If there are more than half of ``QUEUE_LENGTH``, only the newest are sent.
        """
        if self._config is None or not self._targets:
            return
        job, parameters = self._config.job, hyperparameters(self._config)
        for backend, target in self._targets.items():
            run = RunInfo(
                name=job.name,
                namespace=job.namespace,
                uid=job.uid,
                folder=self._config.run_dir,
                resumed_from=resumed_from,
                attempt=attempt,
                trainer_pid=os.getpid(),
                target=target,
                parameters=parameters,
            )
            sender = self._sender(backend)
            self._senders.append(sender)
            sender.send("start", asdict(run))
        for record in records[-QUEUE_LENGTH // 2 :]:
            self.step(record)

    def step(self, record: StepRecord) -> None:
        """Log all numbers of a training step."""
        self._send("log", {"step": record.step, "numbers": numbers(record.dump())})

    def evaluation(self, scores: RowScores) -> None:
        """Log a held-out evaluation: mean reward, mean score per grader, share of truncated completions."""
        self._send("evaluation", {"step": scores.step, "numbers": numbers(evaluation_row(scores), "eval/")})

    def finish(self, run: RunStatus, ending: Ending) -> None:
        """Close the run in all backends, within a time limit.

        An attempt that a newer one has replaced (fenced) leaves the run open for the newer one.
        """
        if ending.exit_code == ExitCode.FENCED:
            for sender in self._senders:
                sender.kill()
            return
        complete = ending.exit_code == ExitCode.OK
        adapter = run.output.adapter if complete and run.output is not None else None
        end = End(ending.exit_code, ending.reason, adapter or "")
        self._send("finish", {"end": asdict(end), "numbers": final_numbers(run)})
        seconds = FINISH_SECONDS if complete else FINISH_SECONDS_OTHERWISE
        deadline = time.monotonic() + seconds
        for sender in self._senders:
            # All processes work in parallel, so they share the time. The minimum is for the exit of processes
            # that are closed after the deadline.
            sender.close(max(LEAST_SECONDS, deadline - time.monotonic()))

    def _send(self, call: str, arguments: dict[str, Any]) -> None:
        for sender in self._senders:
            sender.send(call, arguments)


def targets(config: RunConfig | None) -> dict[str, dict[str, Any]]:
    """Return the tracking backends that ``spec.tracking`` names, with their settings."""
    if config is None or config.spec.tracking is None:
        return {}
    return config.spec.tracking.dump()


def require_libraries(backends: Sequence[str]) -> None:
    """Raise ConfigurationError for a tracking backend whose library is not installed."""
    missing = [backend for backend in backends if find_spec(backend) is None]
    if missing:
        fields = ", ".join(f"spec.tracking.{backend}" for backend in missing)
        extras = ",".join(missing)
        raise ConfigurationError(
            f"{fields}: the library is not installed where the trainer runs: run pip install"
            f" 'rft-operator[{extras}]', or set spec.template.image to an image that has it, or remove the"
            " field"
        )


def evaluation_row(scores: RowScores) -> dict[str, Any]:
    """Return the values that are logged for an evaluation."""
    means = {name: _mean(values) for name, values in scores.graders.items()}
    return {
        "reward": scores.mean_reward,
        "graders": means,
        "truncated": scores.truncated,
        "rows": len(scores.lines),
    }


def final_numbers(run: RunStatus) -> dict[str, float]:
    """Return the final numbers of a run: steps, rewards, held-out evaluation, usage."""
    body = run.dump()
    reward = {name: body.get("reward", {}).get(name) for name in ("best", "baseline", "latest")}
    parts = {"step": run.progress.step, "reward": reward}
    parts |= {name: body[name] for name in ("evaluation", "usage") if name in body}
    return numbers(parts, "final/")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
