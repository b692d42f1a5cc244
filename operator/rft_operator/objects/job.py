"""Builds the child Job of an RFTJob."""

from typing import Any

from rft_api.job import RFTJobSpec
from rft_api.status import Plan
from rft_operator.objects.names import Owner
from rft_operator.objects.platform import Platform
from rft_operator.objects.pod import Image, pod_template
from rft_run.config import TRAINER_CONTAINER
from rft_run.exit_codes import PERMANENT, UNCOUNTED

OWN_COUNT_MARGIN = 100
"""The operator adds this number to ``backoffLimit`` if the API server does not support ``podFailurePolicy``.

Without this policy, the Job controller counts preemptions as failures too. The higher limit keeps the Job
controller from failing the Job. The operator counts the failures itself."""


def child_job(
    owner: Owner,
    spec: RFTJobSpec,
    plan: Plan,
    image: Image,
    *,
    reports: bool,
    counts: bool = False,
    platform: Platform = Platform(),  # noqa: B008 - immutable
) -> dict[str, Any]:
    """Return the manifest of the child Job of an RFTJob.

    - ``image``: the image to use if the spec names none.
    - ``reports``: whether the pod can send reports to the ingest.
    - ``counts``: whether the operator counts the failures of the Job, which then gets a higher
      ``backoffLimit``. This is needed if the API server silently drops the failure policy, as old versions
      do.
    - ``platform``: what the cluster supports and requires.

    ``suspend`` is not set, because a queue such as Kueue sets it when the Job is created.
    """
    metadata = owner.metadata(owner.child)
    template = spec.template
    theirs = (template.labels if template is not None else None) or {}
    metadata["labels"] = {**theirs, **dict(owner.queue), **owner.labels}
    if template is not None and template.annotations:
        metadata["annotations"] = dict(template.annotations)
    seconds = spec.active_deadline_seconds
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            **({"activeDeadlineSeconds": seconds} if seconds is not None else {}),
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": own_count_limit(spec.retry.limit) if counts else spec.retry.limit,
            # Otherwise the next pod could start while the last one still runs, and both would use GPUs.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "Ignore",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    },
                    _on_exit("Ignore", UNCOUNTED),
                    _on_exit("FailJob", PERMANENT),
                ]
            },
            "template": pod_template(owner, spec, plan, image, reports=reports, platform=platform),
        },
    }


def own_count_limit(retry_limit: int) -> int:
    """Return the ``backoffLimit`` of a Job whose failures the operator counts."""
    return retry_limit + OWN_COUNT_MARGIN


def _on_exit(action: str, codes: tuple[int, ...]) -> dict[str, Any]:
    values = sorted(int(code) for code in codes)
    return {
        "action": action,
        "onExitCodes": {"containerName": TRAINER_CONTAINER, "operator": "In", "values": values},
    }
