"""Simulates trainers: they send reports to the ingest of a running operator."""

import json
from collections.abc import Callable
from typing import Any

from tests.integration.operator_support import CONFIG_MAPS, Api, Object, Operator, Run

Submit = Callable[..., Run]


def body(pod: Object, step: int = 3, sequence: int | None = None, **progress: Any) -> bytes:
    """Return the body of a report that the trainer in ``pod`` sends after ``step`` steps.

    - ``sequence`` is the report's sequence number. None: the number is ``step``.
    - ``progress`` are further fields of the report's progress.
    """
    points = [{"step": i, "reward": i / 100} for i in range(1, step + 1)]
    report = {
        "version": 1,
        "attempt": pod["metadata"]["uid"],
        "sequence": step if sequence is None else sequence,
        "run": {
            "progress": {"step": step, "totalSteps": 12, "stage": "training", **progress},
            "reward": {"latest": step / 100, "best": step / 100, "baseline": 0.01, "history": points},
        },
    }
    return json.dumps(report).encode()


class Trainer:
    """A simulated trainer: the newest pod of ``run``, set to Running, and a token for its reports."""

    def __init__(self, run: Run, operator: Operator, api: Api) -> None:
        self.run, self.operator = run, operator
        run.child()
        self.pod = run.pod()
        run.start_pod(self.pod)
        self.token = run.token(self.pod)
        self.ca: str = api.get(CONFIG_MAPS, f"{run.child_name}-ca")["data"]["ca.crt"]

    def push(self, content: bytes, token: str | None = None) -> int:
        """Push a report with the pod's own token, or with ``token``. Return the HTTP status."""
        return self.operator.push(self.ca, token if token is not None else self.token, content)
