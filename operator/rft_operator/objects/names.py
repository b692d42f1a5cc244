"""Names, labels and owner references of the objects that the operator creates for an RFTJob."""

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
"""Labels of an RFTJob that are copied to its child Job, because Kueue reads them there: the queue and the
priority class."""
SELECTOR = f"{MANAGED_BY}={OPERATOR_NAME},{LABEL_JOB_UID}"
"""Label selector for the objects that the operator creates for RFTJobs."""


def uid8(uid: str) -> str:
    """Return the first eight hexadecimal digits of a hash of an RFTJob's UID.

    They are part of the names of the RFTJob's child objects. So a new RFTJob with the name of a deleted one
    gets child objects with other names.
    """
    return hashlib.sha256(uid.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Owner:
    """An RFTJob as the owner of its child objects. The properties are the names, the labels and the owner
    reference of these objects.
    """

    name: str
    namespace: str
    uid: str
    queue: tuple[tuple[str, str], ...] = ()
    """Labels that the child Job gets for a queue such as Kueue, as pairs of key and value. Empty if the
    RFTJob does not use a queue."""

    @property
    def child(self) -> str:
        """The name of the child Job. The ConfigMap with the run's configuration and the PersistentVolumeClaim
        for the run's folder have the same name.
        """
        return f"{self.name}-{uid8(self.uid)}"

    @property
    def cache(self) -> str:
        """Name of the PersistentVolumeClaim for models from the Hugging Face hub, if the operator creates
        this claim.
        """
        return f"{self.child}-hub"

    @property
    def ca(self) -> str:
        """Name of the ConfigMap with the CA certificates of the ingest, the operator's server for reports."""
        return f"{self.child}-ca"

    @property
    def folder(self) -> str:
        """The path of the run's folder, relative to the root of its volume: ``<namespace>/<child>``."""
        return f"{self.namespace}/{self.child}"

    @property
    def labels(self) -> dict[str, str]:
        """Labels of every object that the operator creates for the RFTJob, and of the trainer's pods."""
        return {
            "app.kubernetes.io/name": "rft-trainer",
            MANAGED_BY: OPERATOR_NAME,
            LABEL_JOB_UID: self.uid,
            LABEL_JOB_NAME: self.name,
        }

    @property
    def reference(self) -> dict[str, Any]:
        """The owner reference to this RFTJob, for its child objects. The garbage collector deletes objects
        with this reference when the RFTJob is deleted.
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
        """Return the metadata for a child object with the given name: name, namespace, labels, and the owner
        reference. If ``owned`` is false, the owner reference is left out.
        """
        metadata: dict[str, Any] = {"name": name, "namespace": self.namespace, "labels": self.labels}
        if owned:
            metadata["ownerReferences"] = [self.reference]
        return metadata


def owner_of(document: dict[str, Any]) -> Owner:
    """Return the ``Owner`` for an RFTJob. ``document`` is the RFTJob as the API server returned it."""
    metadata = document["metadata"]
    return Owner(metadata["name"], metadata["namespace"], metadata["uid"], queue_labels(metadata))


def queue_labels(metadata: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the labels of an object by which Kueue admits a Job, as pairs of key and value. ``metadata`` is
    the object's metadata. Labels that the object does not have are left out.
    """
    labels = metadata.get("labels") or {}
    return tuple((name, labels[name]) for name in QUEUE_LABELS if name in labels)


def controller_uid(raw: dict[str, Any]) -> str | None:
    """Return the UID of the controller of the object ``raw``: the owner whose owner reference has
    ``controller: true``. Return ``None`` if the object has no controller.
    """
    reference = controller(raw)
    return str(reference["uid"]) if reference is not None else None


def controller(raw: dict[str, Any]) -> dict[str, Any] | None:
    """Return the owner reference with ``controller: true`` of the object ``raw``, or ``None`` if the object
    has no such reference.
    """
    references = raw.get("metadata", {}).get("ownerReferences") or []
    return next((dict(r) for r in references if r.get("controller")), None)


def is_of(reference: Mapping[str, Any], group: str, kind: str) -> bool:
    """Return whether an owner reference names an object of an API group and a kind, in any API version.

    The core group has the name "".
    """
    api_version = str(reference.get("apiVersion", ""))
    return reference.get("kind") == kind and api_version.rpartition("/")[0] == group


def is_of_rftjob(reference: Mapping[str, Any]) -> bool:
    """Return whether an owner reference names an RFTJob, in any version of its API group."""
    return is_of(reference, GROUP, KIND)
