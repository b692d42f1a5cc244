"""Answers AdmissionReviews of RFTJobs, with pure functions. They have no side effects, so a dry run is
answered like any other request.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rft_advice import advise_job
from rft_api import GROUP, KIND, PLURAL, ahead, immutability
from rft_api.controls import one_line
from rft_api.job import RFTJob
from rft_api.problems import Problem
from rft_api.validation import CheckResult, check
from rft_graders import ahead as graders_ahead
from rft_operator.stages import joined
from rft_operator.webhook.warnings import fitted
from rft_planner.overrides import contradiction

Json = dict[str, Any]

REVIEW = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
OPERATIONS = ("CREATE", "UPDATE")


class Malformed(ValueError):
    """The body of a request to the webhook is not an AdmissionReview, or it is one that the webhook does not
    answer. It answers only reviews of the creation or update of an RFTJob.
    """


class Findings(NamedTuple):
    """The problems and warnings that the webhook found in an RFTJob. If there are problems, the API server
    refuses the request. Warnings never cause a refusal: kubectl prints them.
    """

    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()


def review(document: object) -> Json:
    """Check the RFTJob in an AdmissionReview, and return the AdmissionReview with the response. ``document``
    is the body of the API server's request, as parsed JSON.

    Raises:
        Malformed: if ``document`` is not an AdmissionReview of the creation or update of an RFTJob.
    """
    request = request_of(document)
    old = request["oldObject"] if request["operation"] == "UPDATE" else None
    verdict = judge(request["object"], old)
    response: Json = {"uid": request["uid"], "allowed": not verdict.problems}
    if verdict.problems:
        response["status"] = _refusal(request["object"], verdict.problems)
    if verdict.warnings:
        response["warnings"] = fitted(verdict.warnings)
    return {**REVIEW, "response": response}


def judge(new: Json, old: Json | None) -> Findings:
    """Return the problems and warnings of the RFTJob ``new``. ``old`` is the RFTJob before the update, or
    ``None`` if ``new`` is created.

    The result is empty if an update does not change the spec, or if the RFTJob is being deleted. If all
    problems of ``new`` are also in ``old``, they are returned as warnings.
    """
    if old is not None and (_is_leaving(new) or new.get("spec") == old.get("spec")):
        # The metadata, above all the finalizers, must stay editable even if this webhook refuses the spec.
        return Findings()
    job, problems = check(new)
    before, known = check(old) if old is not None else CheckResult(None, ())
    late: tuple[Problem, ...] = ()
    if old is None and job is not None:
        late = (*ahead.problems(job.spec), *graders_ahead.problems(job.spec, {}))
    if old is not None and before is not None and job is not None:
        late = tuple(immutability.problems(before.spec, job.spec, old.get("status") or {}))
    if late or not set(problems) <= set(known):
        return Findings((*problems, *late))
    # An update is not refused for problems that the old spec has too: cancelling must stay possible.
    return Findings(warnings=(*map(str, problems), *(_warnings(job) if job is not None else ())))


def _warnings(job: RFTJob) -> list[str]:
    overridden = contradiction(job.spec)
    return [*map(str, advise_job(job)), *([overridden] if overridden is not None else [])]


def _is_leaving(job: Json) -> bool:
    return "deletionTimestamp" in job["metadata"]


def _refusal(job: Json, problems: Sequence[Problem]) -> Json:
    """Return the Kubernetes Status with which an RFTJob is refused. Each problem is one of its causes, which
    kubectl prints as a list.
    """
    causes = [
        {"reason": "FieldValueInvalid", "field": one_line(p.path), "message": one_line(p.message)}
        for p in problems
    ]
    return {
        "status": "Failure",
        "code": 422,
        "reason": "Invalid",
        "message": joined(tuple(problems)),
        "details": {"group": GROUP, "kind": KIND, "name": job["metadata"].get("name", ""), "causes": causes},
    }


def request_of(document: object) -> Json:
    """Return the field ``request`` of an AdmissionReview, after checking its form. ``document`` is the parsed
    JSON body that the API server sent.

    Raises:
        Malformed: if ``document`` is not an AdmissionReview of the creation or update of an RFTJob.
    """
    if not isinstance(document, Mapping) or any(document.get(key) != REVIEW[key] for key in REVIEW):
        raise Malformed("the body is not an AdmissionReview of admission.k8s.io/v1")
    request = document.get("request")
    if not isinstance(request, dict):
        raise Malformed("the AdmissionReview has no request")
    if not isinstance(request.get("uid"), str) or not request["uid"]:
        raise Malformed("the request of the AdmissionReview has no uid")
    resource = request.get("resource")
    found = (resource.get("group"), resource.get("resource")) if isinstance(resource, dict) else None
    if found != (GROUP, PLURAL) or request.get("subResource"):
        raise Malformed(f"this webhook reviews only {PLURAL}.{GROUP}")
    operation = request.get("operation")
    if operation not in OPERATIONS:
        raise Malformed(f"this webhook reviews only the operations {' and '.join(OPERATIONS)}")
    for name in ("object", "oldObject") if operation == "UPDATE" else ("object",):
        _check_object(request.get(name), name)
    return request


def _check_object(job: object, name: str) -> None:
    if not isinstance(job, dict) or not isinstance(job.get("metadata"), dict):
        raise Malformed(f"the request has no field {name} with metadata")
    if not isinstance(job.get("status") or {}, dict):
        raise Malformed(f"the status of {name} is not an object")
