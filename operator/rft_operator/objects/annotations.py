"""The annotations of the trainer's pod. They keep the grader container out of what cloud webhooks inject."""

import re
from collections.abc import Mapping

SKIP_CONTAINERS = {
    "eks.amazonaws.com/skip-containers": ",",
    "azure.workload.identity/skip-containers": ";",
    "pod-identity.alibabacloud.com/skip-containers": ",",
}
"""Annotations with the containers that get no cloud identity, each with the separator of its list.

The webhooks of EKS (IAM roles for service accounts, and EKS Pod Identity), of Azure and of Alibaba Cloud
read them. Without them these webhooks mount a token of the pod's service account into every container."""

_NAME = re.compile(r'[^\s,;"]+')


def without_identity(annotations: Mapping[str, str], container: str) -> dict[str, str]:
    """Return a pod's annotations so that no cloud webhook gives ``container`` an identity.

    Names of further containers in ``annotations`` are kept. They are written anew, because the webhook of
    EKS ignores the whole list if it is not valid CSV, and does not remove spaces.
    """
    skipped = {
        key: separator.join(dict.fromkeys([container, *_NAME.findall(annotations.get(key, ""))]))
        for key, separator in SKIP_CONTAINERS.items()
    }
    return {**annotations, **skipped}
