"""Checks all fields of an RFTJob manifest, and the rules across its fields.

The CLI, the admission webhook, the operator and the trainer all use this check.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from rft_api import API_VERSION, KIND, rules
from rft_api.job import RFTJob
from rft_api.problems import InvalidManifest, Problem, from_validation_error


class CheckResult(NamedTuple):
    """The result of the check of a manifest: the RFTJob if the manifest is valid, else all its problems.

    ``job`` is None if there are problems. ``problems`` is empty if the manifest is valid.
    """

    job: RFTJob | None
    problems: tuple[Problem, ...]


def check(document: Mapping[str, Any]) -> CheckResult:
    """Check an RFTJob manifest, and return the RFTJob, or all problems at once.

    The check covers the type and the range of each field, and the rules about several fields.
    """
    named = tuple(_type_problems(document))
    try:
        # Only camelCase names are accepted. The API server accepts no others either.
        job = RFTJob.model_validate({**document, **_TYPE}, by_alias=True, by_name=False)
    except ValidationError as error:
        return CheckResult(None, (*named, *from_validation_error(error, RFTJob)))
    found_problems = (*named, *rules.problems(job.spec))
    return CheckResult(None if found_problems else job, found_problems)


_TYPE = {"apiVersion": API_VERSION, "kind": KIND}


def _type_problems(document: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a problem for each of ``apiVersion`` and ``kind`` that is missing or wrong in a manifest."""
    for field, expected in _TYPE.items():
        found = document.get(field)
        if found != expected:
            said = "is missing" if found is None else f"{found!r} is not {expected}"
            yield Problem(field, f"{said}; write {field}: {expected}")


def parse(document: Mapping[str, Any]) -> RFTJob:
    """Return the RFTJob of a valid manifest.

    Raises:
        InvalidManifest: if the manifest is not valid. The error has all the problems.
    """
    job, found = check(document)
    if job is None:
        raise InvalidManifest(found)
    return job
