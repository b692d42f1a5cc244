"""Starts the processes of all tracking backends of a run, sends them metrics, and ends them.

A tracking backend is for example MLflow. Once the processes are started, calls from the training loop neither
block nor raise errors. Only the end of the run waits for the processes.
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
"""Maximum time in seconds for all trackers together, at the end of a complete run.

In this time they send the data in their queues and upload the adapter.
"""
FINISH_SECONDS_OTHERWISE = 20.0
"""Maximum time in seconds for all trackers together, at the end of a run that is not complete.

It is short, because a pod that is being deleted has little time.
"""

LEAST_SECONDS = 1.0


class Trackers:
    """All tracking backends, such as MLflow, that ``spec.tracking`` names. Each runs in its own process.

    Without a configuration there are none, and all methods do nothing.
    """

    def __init__(self, config: RunConfig | None = None, sender: Callable[[str], Sender] = Sender) -> None:
        """Raise ConfigurationError if the library of a tracking backend in ``config`` is not installed."""
        self._config = config
        self._targets = targets(config)
        self._sender = sender
        self._senders: list[Sender] = []
        require_libraries(list(self._targets))

    def __enter__(self) -> Self:
        """Return this object. The processes of the backends start only in ``start``."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the processes of the backends that are still running."""
        for sender in self._senders:
            sender.kill()

    def start(self, resumed_from: int, attempt: int, records: Sequence[StepRecord] = ()) -> None:
        """Start the process of every tracking backend, and open the run in the backend.

        - ``resumed_from``: the step of the checkpoint from which the attempt starts. 0: no checkpoint.
        - ``attempt``: the number of the attempt, which is a start of the trainer for the run.
        - ``records``: the steps of earlier attempts. They are sent again, because a backend may have been
          unreachable before. At most half of ``QUEUE_LENGTH`` are sent, the newest ones.
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
        """Log the metrics of a training step in every tracking backend."""
        self._send("log", {"step": record.step, "numbers": numbers(record.dump())})

    def evaluation(self, scores: RowScores) -> None:
        """Log a held-out evaluation in every tracking backend: mean reward and mean scores of the graders."""
        self._send("evaluation", {"step": scores.step, "numbers": numbers(evaluation_row(scores), "eval/")})

    def finish(self, run: RunStatus, ending: Ending) -> None:
        """Log the final numbers in every tracking backend, close the run there, and end the processes.

        The time is limited: ``FINISH_SECONDS`` if the run is complete, else ``FINISH_SECONDS_OTHERWISE``. If
        a newer attempt has replaced this one, only kill the processes. The run then stays open.
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
    """Return the settings of each tracking backend in ``spec.tracking``, by its name, such as ``mlflow``."""
    if config is None or config.spec.tracking is None:
        return {}
    return config.spec.tracking.dump()


def require_libraries(backends: Sequence[str]) -> None:
    """Raise ConfigurationError if the library of a tracking backend, such as ``wandb``, is not installed."""
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
    """Return the values of a held-out evaluation that are logged in the tracking backends.

    They are the mean reward, the mean score of each grader, the share of truncated completions, and the
    number of rows.
    """
    means = {name: _mean(values) for name, values in scores.graders.items()}
    return {
        "reward": scores.mean_reward,
        "graders": means,
        "truncated": scores.truncated,
        "rows": len(scores.lines),
    }


def final_numbers(run: RunStatus) -> dict[str, float]:
    """Return the final numbers of a run: step, rewards, held-out evaluation and usage.

    The keys are paths such as ``final/reward/best``.
    """
    body = run.dump()
    reward = {name: body.get("reward", {}).get(name) for name in ("best", "baseline", "latest")}
    parts = {"step": run.progress.step, "reward": reward}
    parts |= {name: body[name] for name in ("evaluation", "usage") if name in body}
    return numbers(parts, "final/")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
