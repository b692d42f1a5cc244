"""Names, labels and owner references of the child objects."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rft_api import API_VERSION, GROUP, KIND

MANAGED_BY = "app.kubernetes.io/managed-by"
OPERATOR_NAME = "rft-operator"
LABEL_JOB_UID = "rft.dev/job-uid"
LABEL_JOB_NAME = "rft.dev/job-name"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
QUEUE_LABELS = (QUEUE_LABEL, "kueue.x-k8s.io/priority-class")
"""Labels of an RFTJob by which Kueue admits its child Job."""
SELECTOR = f"{MANAGED_BY}={OPERATOR_NAME},{LABEL_JOB_UID}"
"""Label selector of all objects that the operator creates."""


def uid8(uid: str) -> str:
    """Return eight hexadecimal digits from a hash of an RFTJob's UID.

    They are part of the names of the child objects. So these names differ from those of an earlier RFTJob
    with an equal name.
    """
    return hashlib.sha256(uid.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Owner:
    """The RFTJob that owns a child object."""

    name: str
    namespace: str
    uid: str
    queue: tuple[tuple[str, str], ...] = ()
    """Labels that the child Job gets for a queue such as Kueue."""

    @property
    def child(self) -> str:
        """The name of the child Job. Its ConfigMap and its PersistentVolumeClaim have the same name."""
        return f"{self.name}-{uid8(self.uid)}"

    @property
    def cache(self) -> str:
        """Name of the PersistentVolumeClaim for models from the hub, if the operator creates one."""
        return f"{self.child}-hub"

    @property
    def ca(self) -> str:
        """Name of the ConfigMap with the CA certificates of the ingest."""
        return f"{self.child}-ca"

    @property
    def folder(self) -> str:
        """The path of the run's folder within its volume."""
        return f"{self.namespace}/{self.child}"

    @property
    def labels(self) -> dict[str, str]:
        """Labels of every child object, pods included."""
        return {
            "app.kubernetes.io/name": "rft-trainer",
            MANAGED_BY: OPERATOR_NAME,
            LABEL_JOB_UID: self.uid,
            LABEL_JOB_NAME: self.name,
        }

    @property
    def reference(self) -> dict[str, Any]:
        """The owner reference of a child object. With it, the garbage collector deletes the child with its
        RFTJob.
        """
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }

    def metadata(self, name: str, *, owned: bool = True) -> dict[str, Any]:
        """Return the metadata of a child object with this name. If ``owned`` is false, the object gets no
        owner reference.
        """
        metadata: dict[str, Any] = {"name": name, "namespace": self.namespace, "labels": self.labels}
        if owned:
            metadata["ownerReferences"] = [self.reference]
        return metadata


def owner_of(document: dict[str, Any]) -> Owner:
    """Return the RFTJob in ``document`` as the owner of its child objects."""
    metadata = document["metadata"]
    return Owner(metadata["name"], metadata["namespace"], metadata["uid"], queue_labels(metadata))


def queue_labels(metadata: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return those labels of an object that a queue such as Kueue needs."""
    labels = metadata.get("labels") or {}
    return tuple((name, labels[name]) for name in QUEUE_LABELS if name in labels)


def controller_uid(raw: dict[str, Any]) -> str | None:
    """Return the UID of an object's controller, which is the owner that manages the object. Return ``None``
    if there is none.
    """
    reference = controller(raw)
    return str(reference["uid"]) if reference is not None else None


def controller(raw: dict[str, Any]) -> dict[str, Any] | None:
    """Return the owner reference of an object's controller, or ``None`` if the object has no controller."""
    references = raw.get("metadata", {}).get("ownerReferences") or []
    return next((dict(r) for r in references if r.get("controller")), None)


def is_of(reference: Mapping[str, Any], group: str, kind: str) -> bool:
    """Return whether an owner reference names an object of a group and kind, in any version of the API.

    The core group has the name "".
    """
    api_version = str(reference.get("apiVersion", ""))
    return reference.get("kind") == kind and api_version.rpartition("/")[0] == group


def is_of_rftjob(reference: Mapping[str, Any]) -> bool:
    """Return whether an owner reference names an RFTJob, in any version of the API."""
    return is_of(reference, GROUP, KIND)
