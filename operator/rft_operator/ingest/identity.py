"""Finds out which RFTJob a trainer's report belongs to, with pure functions. They check the token of the
request, the token's pod, the Job of that pod, and the RFTJob of that Job.

A sender could write any name into the URL or the body, so both are ignored here. The API server reviews the
token.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from rft_api import GROUP, KIND
from rft_operator.objects.names import controller, is_of
from rft_operator.observe import Observed

POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"
GONE = 410
"""HTTP status of the response if the pod, the Job or the RFTJob of the sender is deleted. The sender need not
try again."""
_USER_PREFIX = "system:serviceaccount:"

Raw = Mapping[str, Any]


class Refused(Exception):
    """The ingest refuses a trainer's report. ``status`` is the HTTP status of the response, and the message
    of this exception is the text of the response.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Claims:
    """The pod to which a service account token is bound, as the API server's TokenReview says."""

    namespace: str
    pod_name: str
    pod_uid: str


@dataclass(frozen=True)
class Caller:
    """The verified sender of a trainer's report: a pod, and the RFTJob to which its owner references lead."""

    namespace: str
    job_name: str
    job_uid: str
    pod_uid: str
    pod_created: str
    known_attempt: int = 0
    """``status.progress.attempt`` of the RFTJob when this object was made. Later attempts have larger
    numbers. Reports of earlier attempts are refused."""


def claims(review: Raw, audience: str) -> Claims:
    """Return the pod to which a token is bound. ``review`` is the status of the token's TokenReview.

    Raises:
        Refused: 401 if the token is not valid for ``audience``, 403 if it is not bound to a pod.
    """
    if review.get("authenticated") is not True:
        raise Refused(401, "the token is not valid")
    # An API server that does not support audiences leaves the list out, and has checked no audience.
    if audience not in (review.get("audiences") or []):
        raise Refused(401, f"the token is not for the audience {audience}")
    user = review.get("user") or {}
    parts = str(user.get("username", "")).removeprefix(_USER_PREFIX).split(":")
    if not str(user.get("username", "")).startswith(_USER_PREFIX) or len(parts) != 2 or not all(parts):
        raise Refused(403, "the token does not belong to a service account")
    extra = user.get("extra") or {}
    pod_name, pod_uid = _only(extra.get(POD_NAME)), _only(extra.get(POD_UID))
    if not pod_name or not pod_uid:
        raise Refused(403, "the token is not bound to a pod")
    return Claims(parts[0], pod_name, pod_uid)


def _only(values: object) -> str:
    return str(values[0]) if isinstance(values, list) and len(values) == 1 else ""


def served(claimed: Claims, namespaces: Collection[str]) -> None:
    """Raise Refused with the HTTP status 403 if the namespace of the pod in ``claimed`` is not one of
    ``namespaces``. If ``namespaces`` is empty, all namespaces are allowed.
    """
    if namespaces and claimed.namespace not in namespaces:
        raise Refused(403, "this operator does not serve the namespace of the pod")


def live_pod(claimed: Claims, pod: Raw | None) -> dict[str, Any]:
    """Check that the pod of a token still exists and has not ended. Return its owner reference to its Job.

    - ``claimed``: the pod to which the sender's token is bound.
    - ``pod``: the pod that now has this name, or ``None`` if there is none.

    Raises:
        Refused: 410 if ``pod`` is missing or has another UID, 403 if it has ended or has no Job.
    """
    if pod is None or pod["metadata"]["uid"] != claimed.pod_uid:
        raise Refused(GONE, "the pod of the token does not exist any more")
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        raise Refused(403, "the pod of the token has ended")
    return _controller(pod, "batch", "Job", "the pod is not controlled by a Job")


def live_child(reference: Raw, child: Raw | None) -> dict[str, Any]:
    """Check that the Job of a sender's pod still exists. Return its owner reference to its RFTJob.

    - ``reference``: the pod's owner reference to its Job.
    - ``child``: the Job that now has the name in ``reference``, or ``None`` if there is none.

    Raises:
        Refused: 410 if ``child`` is missing or has another UID, 403 if it has no RFTJob.
    """
    if child is None or child["metadata"]["uid"] != reference["uid"]:
        raise Refused(GONE, "the Job of the pod does not exist any more")
    return _controller(child, GROUP, KIND, f"the Job is not controlled by an {KIND}")


def live_job(reference: Raw, job: Raw | None) -> Raw:
    """Check that ``job`` is the RFTJob that owns the Job of a sender's pod, and return ``job``.

    - ``reference``: the owner reference of the Job to its RFTJob.
    - ``job``: the RFTJob that now has the name in ``reference``, or ``None`` if there is none.

    Raises:
        Refused: 410 if ``job`` is missing or has another UID.
    """
    if job is None or job["metadata"]["uid"] != reference["uid"]:
        raise Refused(GONE, f"the {KIND} of the pod does not exist any more")
    return job


def _controller(raw: Raw, group: str, kind: str, otherwise: str) -> dict[str, Any]:
    reference = controller(dict(raw))
    if reference is None or not is_of(reference, group, kind):
        raise Refused(403, otherwise)
    return reference


def caller(claimed: Claims, pod: Raw, job: Raw) -> Caller:
    """Return the sender of a report: the pod in ``claimed``, and its RFTJob ``job``. ``pod`` is the object of
    that pod.

    This function checks nothing. The caller must have checked the token, the pod and its owners before.
    """
    return _caller(job, claimed.pod_uid, pod["metadata"].get("creationTimestamp", ""))


def callers(job: Raw, observed: Observed) -> list[Caller]:
    """Return the senders that may send reports for the RFTJob ``job``: the live pods of its child Job.

    A reconciliation has read all these objects already. It caches the senders for the ingest, so that the
    ingest need not read the objects again.
    """
    return [_caller(job, pod.uid, pod.created) for pod in observed.attempts if pod.alive]


def _caller(job: Raw, pod_uid: str, pod_created: str) -> Caller:
    metadata = job["metadata"]
    return Caller(
        namespace=metadata["namespace"],
        job_name=metadata["name"],
        job_uid=metadata["uid"],
        pod_uid=pod_uid,
        pod_created=pod_created,
        known_attempt=int(((job.get("status") or {}).get("progress") or {}).get("attempt", 0)),
    )
