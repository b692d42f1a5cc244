"""Functions that read RFTJobs in the test cluster."""

from tests.kubectl import Kubectl, Object


def status(kubectl: Kubectl, name: str) -> Object:
    return dict(kubectl.get("rftjob", name).get("status") or {})


def ended(kubectl: Kubectl, name: str) -> Object | None:
    found = status(kubectl, name)
    return found if found.get("phase") in ("Succeeded", "Failed", "Cancelled", "Invalid") else None


def condition(found: Object, kind: str) -> Object:
    return next(c for c in found["conditions"] if c["type"] == kind)


def pods(kubectl: Kubectl, name: str) -> list[Object]:
    found = kubectl.list("pods", f"rft.dev/job-name={name}")
    return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
