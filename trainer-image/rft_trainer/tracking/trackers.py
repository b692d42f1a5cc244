"""All trackers of a run, as the loop sees them: no call waits, and none raises once the run has begun."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any, Self

from rft_api.exitcodes import ExitCode
from rft_api.report import Ending
from rft_api.runconfig import RunConfig
from rft_api.status import RunStatus
from rft_trainer.errors import ConfigurationError
from rft_trainer.heldout import RowScores
from rft_trainer.tracking.flat import hyperparameters, numbers
from rft_trainer.tracking.protocol import End, RunInfo
from rft_trainer.tracking.sender import QUEUE_LENGTH, Sender

FINISH_SECONDS = 120.0
"""How long the trackers together may take to send what is left, the adapter included."""
FINISH_SECONDS_OTHERWISE = 20.0
"""The same for an attempt that did not complete: a pod that is stopped has little time."""

LEAST_SECONDS = 1.0


class Trackers:
    """The backends of ``spec.tracking``; none is fine too."""

    def __init__(self, config: RunConfig | None = None, sender: Callable[[str], Sender] = Sender) -> None:
        """Check that every library is there. Raises ConfigurationError."""
        self._config = config
        self._targets = targets(config)
        self._sender = sender
        self._senders: list[Sender] = []
        require_libraries(list(self._targets))

    def __enter__(self) -> Self:
        """Return itself; the processes start with ``start``."""
        return self

    def __exit__(self, *_: object) -> None:
        """End what ``finish`` has not."""
        for sender in self._senders:
            sender.kill()

    def start(self, resumed_from: int, attempt: int, rows: Sequence[Mapping[str, Any]] = ()) -> None:
        """Open the run at every backend; ``resumed_from`` is the step of the checkpoint.

        ``rows`` are those of the attempts before: a backend that was away then gets them now.
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
        for row in rows[-QUEUE_LENGTH // 2 :]:
            self.log(row)

    def log(self, row: Mapping[str, Any]) -> None:
        """Log a row of ``metrics.jsonl``: every number of it."""
        self._send("log", {"step": row["step"], "numbers": numbers(row)})

    def evaluation(self, scores: RowScores) -> None:
        """Log a held-out evaluation: means of the reward and of each grader, and the share that was cut."""
        self._send("evaluation", {"step": scores.step, "numbers": numbers(evaluation_row(scores), "eval/")})

    def finish(self, run: RunStatus, ending: Ending) -> None:
        """Close the run everywhere, for a bounded time. A fenced attempt is silent: another one logs now."""
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
            # All of them are at it already: the time is shared, and the last still gets to say how it went.
            sender.close(max(LEAST_SECONDS, deadline - time.monotonic()))

    def _send(self, call: str, arguments: dict[str, Any]) -> None:
        for sender in self._senders:
            sender.send(call, arguments)


def targets(config: RunConfig | None) -> dict[str, dict[str, Any]]:
    """Return the backends of ``spec.tracking`` with their settings."""
    if config is None or config.spec.tracking is None:
        return {}
    return config.spec.tracking.dump()


def require_libraries(backends: Sequence[str]) -> None:
    """Raise ConfigurationError for a backend whose library is not installed."""
    missing = [backend for backend in backends if find_spec(backend) is None]
    if missing:
        fields = ", ".join(f"spec.tracking.{backend}" for backend in missing)
        extras = ",".join(missing)
        raise ConfigurationError(
            f"{fields}: the library is not installed where the trainer runs;"
            f" pip install 'rft-operator[{extras}]', name an image that has it in spec.template.image,"
            " or remove the field"
        )


def evaluation_row(scores: RowScores) -> dict[str, Any]:
    """Return what is logged of an evaluation."""
    means = {name: _mean(values) for name, values in scores.graders.items()}
    return {
        "reward": scores.mean_reward,
        "graders": means,
        "truncated": scores.truncated,
        "rows": len(scores.lines),
    }


def final_numbers(run: RunStatus) -> dict[str, float]:
    """Return the numbers of the whole run: steps, best reward, paired evaluation with its interval, usage."""
    body = run.dump()
    reward = {name: body.get("reward", {}).get(name) for name in ("best", "baseline", "latest")}
    parts = {"step": run.progress.step, "reward": reward}
    parts |= {name: body[name] for name in ("evaluation", "usage") if name in body}
    return numbers(parts, "final/")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
