"""Lists the parameters in which an RFTJob differs from its baseline, the earlier RFTJob that it is compared
with.

The tuning guide advises one change at a time, because after several changes nobody knows which one helped.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rft_advice.guide import guide_for
from rft_api.effective import effective
from rft_api.job import RFTJobSpec
from rft_api.problems import join_path
from rft_api.status import Baseline, Change
from rft_api.validation import check

ANNOTATION = "rft.dev/baseline"
"""Annotation of an RFTJob with the name of its baseline: another RFTJob in the same namespace, with which it
is compared."""

TUNED = ("model", "dataset", "graders", "evaluation", "training", "sampling")
"""Sections of the spec that are compared, because they influence what the model learns. The other sections
decide where and how long the job runs."""


def named_in(document: Mapping[str, Any]) -> str | None:
    """Return the name of an RFTJob's baseline from its annotation, or None if it has no such annotation.
    ``document`` is the RFTJob's manifest.
    """
    annotations = (document.get("metadata") or {}).get("annotations") or {}
    return annotations.get(ANNOTATION) or None


def compare(name: str, spec: RFTJobSpec, document: Mapping[str, Any] | None) -> Baseline:
    """Return the parameters in which the RFTJob with ``spec`` differs from its baseline, the RFTJob ``name``.

    ``document`` is the manifest of the baseline, or None if it does not exist. If the two cannot be compared,
    the result has only a message that says why.
    """
    if document is None:
        return Baseline(job=name, message=f"There is no RFTJob {name} in this namespace.")
    job, problems = check(document)
    if job is None:
        return Baseline(job=name, message=f"RFTJob {name} is not valid: {problems[0]}")
    found = changes(job.spec, spec)
    return Baseline(job=name, changes=found, **{"message": said} if (said := warning(found)) else {})


def changes(before: RFTJobSpec, after: RFTJobSpec) -> list[Change]:
    """Return the parameters whose values differ between two specs, each with the old and the new value, in
    the order of the manifest. A training parameter that a spec does not set has its default.
    """
    old, new = _parameters(before), _parameters(after)
    return [
        Change.model_validate({"path": path, **_said("from", old.get(path)), **_said("to", new.get(path))})
        for path in {**new, **old}
        if old.get(path) != new.get(path)
    ]


def warning(found: Sequence[Change]) -> str | None:
    """Return a warning if more than one of the tuning guide's nine parameters is among the changes ``found``,
    else None.
    """
    changed = [change.path for change in found if guide_for(change.path)]
    if len(changed) < 2:
        return None
    return (
        f"{len(changed)} parameters changed ({', '.join(changed)});"
        " change one parameter at a time, to see which one makes the difference."
    )


def _parameters(spec: RFTJobSpec) -> dict[str, Any]:
    """Return the values of all compared parameters of a spec. The keys are paths, such as
    ``spec.training.loraRank``.

    If the spec does not set a training parameter, its value is the one that a run would use, which may depend
    on other fields.
    """
    body = {part: value for part, value in spec.dump().items() if part in TUNED}
    # An empty UID is enough: only the seed is derived from the UID, and the seed is not compared.
    derived = effective(spec, uid="").dump()
    del derived["seed"]
    body["training"] = {**derived, **body["training"]}
    return dict(_leaves(body, ("spec",)))


def _leaves(value: Any, loc: tuple[str | int, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*loc, key))
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*loc, index))
    else:
        yield join_path(loc), value


def _said(key: str, value: Any) -> dict[str, str]:
    if value is None:
        return {}
    return {key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}
