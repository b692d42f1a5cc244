"""The complete check of a manifest, used by CLI, webhook, operator and trainer."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from rft_api import API_VERSION, KIND, rules
from rft_api.job import RFTJob
from rft_api.problems import InvalidManifest, Problem, from_validation_error


class CheckResult(NamedTuple):
    """A valid job, or all problems of the manifest."""

    job: RFTJob | None
    problems: tuple[Problem, ...]


def check(document: Mapping[str, Any]) -> CheckResult:
    """Check types, ranges and the rules about several fields; return all problems at once."""
    kind = (document.get("apiVersion"), document.get("kind"))
    if kind != (API_VERSION, KIND):
        found = f"{kind[0]}, {kind[1]}"
        return CheckResult(None, (Problem("kind", f"{found} is not {API_VERSION}, {KIND}"),))
    try:
        # Only camelCase names are accepted, as by the API server.
        job = RFTJob.model_validate(dict(document), by_alias=True, by_name=False)
    except ValidationError as error:
        return CheckResult(None, tuple(from_validation_error(error, RFTJob)))
    found_problems = tuple(rules.problems(job.spec))
    return CheckResult(None if found_problems else job, found_problems)


def parse(document: Mapping[str, Any]) -> RFTJob:
    """Return the job of a valid manifest.

    Raises:
        InvalidManifest: with all problems, when the manifest is not valid.
    """
    job, found = check(document)
    if job is None:
        raise InvalidManifest(found)
    return job
