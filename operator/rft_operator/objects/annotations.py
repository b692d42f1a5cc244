"""Annotations for the trainer's pod. They tell the admission webhooks of the cloud providers to give no cloud
credentials to the grader container, which runs users' code.
"""

import re
from collections.abc import Mapping

SKIP_CONTAINERS = {
    "eks.amazonaws.com/skip-containers": ",",
    "azure.workload.identity/skip-containers": ";",
    "pod-identity.alibabacloud.com/skip-containers": ",",
}
"""Annotations of a pod that list the containers which get no cloud credentials. Each key here is the key of
an annotation, and its value is the separator of the list.

These annotations are read by the webhooks of EKS (IAM roles for service accounts, and EKS Pod Identity), of
Azure and of Alibaba Cloud. Without the annotations, the webhooks mount a token of the pod's service account
into every container."""

_NAME = re.compile(r'[^\s,;"]+')


def without_identity(annotations: Mapping[str, str], container: str) -> dict[str, str]:
    """Return the annotations of a pod, changed so that no webhook of a cloud provider gives credentials to
    ``container``.

    The name of the container is added to each list of containers without credentials. The lists are written
    without spaces and as valid CSV: the webhook of EKS does not remove spaces, and it ignores a whole list
    that is not valid CSV.
    """
    skipped = {
        key: separator.join(dict.fromkeys([container, *_NAME.findall(annotations.get(key, ""))]))
        for key, separator in SKIP_CONTAINERS.items()
    }
    return {**annotations, **skipped}
