"""Builds the child Job of an RFTJob: the ``batch/v1`` Job whose pod runs the trainer."""

from typing import Any

from rft_api.job import RFTJobSpec
from rft_api.status import Plan
from rft_operator.objects.names import Owner
from rft_operator.objects.platform import Platform
from rft_operator.objects.pod import Image, pod_template
from rft_run.config import TRAINER_CONTAINER
from rft_run.exit_codes import PERMANENT, UNCOUNTED

OWN_COUNT_MARGIN = 100
"""Number that is added to the Job's ``backoffLimit`` if the API server does not support ``podFailurePolicy``.

Without this policy, the Job controller also counts preempted pods as failures. So the operator counts the
failures itself, and the higher limit keeps the Job controller from ending the Job too early."""


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
    """Return the manifest of the child Job of an RFTJob, whose pod runs the trainer.

    - ``image``: the image to use if the spec names none.
    - ``reports``: whether the trainer can send progress reports to the operator.
    - ``counts``: whether the operator itself counts the failed pods. Then ``backoffLimit`` is higher. This is
      needed if the API server silently drops ``podFailurePolicy``, as old versions do.
    - ``platform``: the features and requirements of the cluster.

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
            # The next pod starts only after the last one has ended. Otherwise both could use GPUs.
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
    """Return the ``backoffLimit`` of a child Job if the operator itself counts the Job's failed pods.

    ``retry_limit`` is ``spec.retry.limit`` of the RFTJob.
    """
    return retry_limit + OWN_COUNT_MARGIN


def _on_exit(action: str, codes: tuple[int, ...]) -> dict[str, Any]:
    values = sorted(int(code) for code in codes)
    return {
        "action": action,
        "onExitCodes": {"containerName": TRAINER_CONTAINER, "operator": "In", "values": values},
    }
