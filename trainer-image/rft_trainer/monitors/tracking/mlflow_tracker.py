"""Logs to MLflow. All attempts of a job log to one MLflow run, which has the RFTJob's UID as a tag."""

import importlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from rft_run.exit_codes import ExitCode
from rft_trainer.monitors.tracking.flat import texts
from rft_trainer.monitors.tracking.protocol import End, RunInfo

UID_TAG = "rft.dev/uid"
ADAPTER = "adapter"
EVERY_STEP, EVERY_EVALUATION = "stepSeconds", "eval/rows"
"""A metric that every step has, and a metric that every evaluation has.

In MLflow the histories of these metrics show the last step and the last evaluation that earlier attempts
logged.
"""

MAX_NAME, MAX_VALUE, MAX_BATCH = 250, 6000, 100
"""MLflow's limits: characters of a parameter's name, characters of its value, parameters per request."""

_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


class MlflowTracker:
    """The tracking backend for MLflow. It uses MLflow's synchronous client.

    It runs in its own process, so the trainer does not wait for MLflow.
    """

    def start(self, run: RunInfo) -> None:
        """Find the job's MLflow run, or create it, and log the parameters.

        Parameters that the MLflow run already has are not changed.
        """
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        mlflow: Any = importlib.import_module("mlflow")
        self._entities: Any = importlib.import_module("mlflow.entities")
        self._client: Any = mlflow.MlflowClient(run.target["trackingUri"])
        experiment = self._experiment(run.target["experiment"])
        found = self._client.search_runs([experiment], f"tags.`{UID_TAG}` = '{run.uid}'", max_results=1)
        if found:
            opened = found[0]
        else:
            tags = {UID_TAG: run.uid, "rft.dev/name": run.name, "rft.dev/namespace": run.namespace}
            opened = self._client.create_run(experiment, run_name=run.name, tags=tags)
        self._uploads = run.target["uploadAdapter"]
        self._run: str = opened.info.run_id
        self._client.update_run(self._run, status="RUNNING")
        self._log_parameters(run.parameters, opened.data.params)
        self._steps = self._newest(EVERY_STEP)
        self._evaluations = self._newest(EVERY_EVALUATION)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the metrics ``numbers`` of a training step, unless an earlier attempt logged this step.

        If a step is logged twice, MLflow shows both values, and cannot delete one of them.
        """
        if step > self._steps:
            self._metrics(step, numbers)
            self._steps = step

    def evaluation(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the scores ``numbers`` of a held-out evaluation, unless an earlier attempt logged this step."""
        if step > self._evaluations:
            self._metrics(step, numbers)
            self._evaluations = step

    def finish(self, end: End, numbers: Mapping[str, float]) -> None:
        """Log the final numbers, upload the adapter if this is asked for, and close the MLflow run.

        The status of the MLflow run becomes FINISHED, KILLED if the trainer was asked to stop, else FAILED.
        """
        self._metrics(int(numbers.get("final/step", 0)), numbers)
        self._client.set_tag(self._run, "rft.dev/reason", end.reason)
        try:
            if end.adapter and self._uploads:
                self._client.log_artifacts(self._run, end.adapter, ADAPTER)
        finally:
            self._client.set_terminated(self._run, _STATUS.get(end.exit_code, "FAILED"))

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found is not None else self._client.create_experiment(name))

    def _log_parameters(self, parameters: Mapping[str, Any], known: Mapping[str, str]) -> None:
        """Log those of ``parameters`` that are not in ``known``, the parameters that the MLflow run has.

        MLflow refuses to change a parameter.
        """
        new = [(name, value) for name, value in limited(texts(parameters)).items() if name not in known]
        for batch in _batches(new, MAX_BATCH):
            self._client.log_batch(self._run, params=[self._entities.Param(*pair) for pair in batch])

    def _metrics(self, step: int, numbers: Mapping[str, float]) -> None:
        now = time.time_ns() // 1_000_000
        metrics = [self._entities.Metric(name, value, now, step) for name, value in numbers.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def _newest(self, metric: str) -> int:
        history = self._client.get_metric_history(self._run, metric)
        return max((entry.step for entry in history), default=-1)


_STATUS: dict[int, str] = {ExitCode.OK: "FINISHED", ExitCode.PREEMPTED: "KILLED"}


def limited(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters with names and values truncated to the lengths that MLflow accepts.

    Parameters with an empty value are left out.
    """
    return {name[:MAX_NAME]: _cut(value) for name, value in parameters.items() if value}


def _cut(value: str) -> str:
    return value if len(value) <= MAX_VALUE else value[: MAX_VALUE - 1] + "…"


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
