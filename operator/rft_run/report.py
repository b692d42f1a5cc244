"""Defines the reports from the trainer to the operator. Each report has the whole status of the run."""

import json
from typing import Literal

from pydantic import Field

from rft_api.base import Int, Model
from rft_api.lifecycle import Stop
from rft_api.status import RunStatus
from rft_run.cluster_text import ClusterObject, cluster_object

REPORT_PATH = "/v1/report"
TOKEN_AUDIENCE = "rft.dev/ingest"
MAX_REPORT_BYTES = 64 * 1024
MAX_TERMINATION_BYTES = 4000
"""Maximum size of a termination message, in bytes. The kubelet truncates longer messages."""
MAX_ENDING = 2048
"""Maximum number of characters in the message of an ``Ending``."""


class Ending(Model):
    """The end of an attempt: the exit code of the trainer, its reason and a message."""

    exit_code: Int = Field(ge=0, le=255, description="Exit code of the trainer, see rft_run.exit_codes.")
    reason: str = Field(description="Reason for the job's conditions.")
    message: str = Field("", max_length=MAX_ENDING, description="One sentence without secrets.")


class ReportAnswer(Model):
    """The operator's response to a report that it accepted."""

    stop: Stop | None = Field(
        None, description="The current spec.stop. Empty if the spec has none, absent if it is not known."
    )


class ProgressReport(Model):
    """A report of an attempt. It has the whole status of the run, so the operator needs no earlier report."""

    version: Literal[1] = 1
    attempt: str = Field(min_length=1, max_length=128, description="UID of the reporting pod.")
    sequence: Int = Field(ge=0, description="Number of the report, counted within its attempt.")
    resumed_from_step: Int = Field(0, ge=0, description="Step of the checkpoint that the attempt began from.")
    run: RunStatus = Field(description="Progress, reward, metrics.")
    ending: Ending | None = Field(None, description="The end of the attempt, in its last report.")

    def for_cluster(self) -> ClusterObject:
        """Return the report as a JSON object. All its texts are safe to show in the cluster."""
        return cluster_object(self.dump())

    def termination_message(self) -> ClusterObject:
        """Return the report as a JSON object for a termination message, without the recommendations.

        If the JSON is longer than ``MAX_TERMINATION_BYTES`` bytes, the oldest points of the reward curve are
        left out. If it is still too long, ``run`` has only the progress, and the message of ``ending`` is
        truncated until it fits.
        """
        body = self.for_cluster()
        body["run"].pop("recommendations", None)
        history = body["run"].get("reward", {}).get("history")
        while len(json.dumps(body, separators=(",", ":")).encode()) > MAX_TERMINATION_BYTES:
            message = body.get("ending", {}).get("message")
            if history:
                del history[: max(1, len(history) // 2)]
            elif set(body["run"]) != {"progress"}:
                body["run"] = {"progress": body["run"]["progress"]}
            elif message:
                body["ending"]["message"] = message[: len(message) // 2]
            else:
                break
        return body
