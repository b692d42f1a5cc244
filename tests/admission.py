"""Builds AdmissionReviews like those that the API server sends."""

from typing import Any

Json = dict[str, Any]


def admission_review(new: Json | None, old: Json | None = None, **changes: Any) -> Json:
    """Return the AdmissionReview of an update of ``old`` to ``new``, or of a creation if ``old`` is None.

    ``changes`` replace fields of the request.
    """
    resource = {"group": "rft.dev", "version": "v1alpha1", "resource": "rftjobs"}
    request = {
        "uid": "7f0b2891-916f-4ed6-b7cd-27bff1815a8c",
        "kind": {"group": "rft.dev", "version": "v1alpha1", "kind": "RFTJob"},
        "resource": resource,
        "requestKind": {"group": "rft.dev", "version": "v1alpha1", "kind": "RFTJob"},
        "requestResource": resource,
        "name": "job",
        "namespace": "team",
        "operation": "CREATE" if old is None else "UPDATE",
        "userInfo": {"username": "jane", "groups": ["system:authenticated"]},
        "object": new,
        "oldObject": old,
        "dryRun": False,
        "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        **changes,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
