"""The annotations of the trainer's pod. With them, the webhooks of clouds give the grader container no
credentials of the cloud.
"""

import re
from collections.abc import Mapping

SKIP_CONTAINERS = {
    "eks.amazonaws.com/skip-containers": ",",
    "azure.workload.identity/skip-containers": ";",
    "pod-identity.alibabacloud.com/skip-containers": ",",
}
"""Annotations that list the containers without a cloud identity. The value is the separator of the list.

The webhooks of EKS (IAM roles for service accounts, and EKS Pod Identity), of Azure and of Alibaba Cloud
read these annotations. Without them, the webhooks mount a token of the pod's service account into every
container."""

_NAME = re.compile(r'[^\s,;"]+')


def without_identity(annotations: Mapping[str, str], container: str) -> dict[str, str]:
    """Return a pod's annotations, changed so that no cloud webhook gives ``container`` an identity.

    Containers that the lists in ``annotations`` name already stay in them. The lists are written anew,
    because the webhook of EKS does not remove spaces, and ignores a whole list that is not valid CSV.
    """
    skipped = {
        key: separator.join(dict.fromkeys([container, *_NAME.findall(annotations.get(key, ""))]))
        for key, separator in SKIP_CONTAINERS.items()
    }
    return {**annotations, **skipped}
