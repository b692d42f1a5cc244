"""Converts nested metrics and parameters into the flat mappings that tracking backends accept."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rft_api.status import Plan
from rft_run.config import RunConfig

_USER_INFO = re.compile(r"^([a-z][a-z0-9+.-]*://)[^/@]*@", re.IGNORECASE)
_NO_PARAMETERS = ("tracking", "template")
"""Parts of the spec that are not hyperparameters and may contain secrets."""


def numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the finite numbers in nested mappings as a flat mapping, with keys such as ``graders/correct``.

    Strings, lists and None are left out. True becomes 1. ``prefix``: the beginning of each key.
    """
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and math.isfinite(value):
            found[f"{prefix}{name}"] = float(value)
    return found


def hyperparameters(config: RunConfig) -> dict[str, Any]:
    """Return the hyperparameters of a run as nested mappings, for the tracking backends.

    They are the job's spec, the parameters with their defaults filled in, and the plan of GPUs and memory.
    ``spec.tracking``, ``spec.template`` and passwords in URLs are left out.
    """
    spec = {name: value for name, value in config.spec.dump().items() if name not in _NO_PARAMETERS}
    whole = {
        "job": config.job.dump(),
        "spec": spec,
        "effective": config.effective.dump(),
        "device": config.device,
        "gpus": config.gpus,
        **({} if config.plan is None else {"plan": _without_inherited(config.plan)}),
    }
    cleaned: dict[str, Any] = _without_passwords(whole)
    return cleaned


def _without_inherited(plan: Plan) -> dict[str, Any]:
    """Return a plan as a mapping, without the names of the fields whose values are the platform's defaults.

    The values of these fields are parameters of the run, but their names are not.
    """
    derived = plan.effective.model_copy(update={"inherited": None}) if plan.effective is not None else None
    return plan.model_copy(update={"effective": derived}).dump()


def texts(values: Any, prefix: str = "") -> dict[str, str]:
    """Return the values in nested mappings and lists as one flat mapping, with each value as text.

    The keys are paths such as ``spec.graders.0.name``.
    """
    return dict(_leaves(values, prefix))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        parts: list[tuple[str, Any]] = list(value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        parts = [(str(index), part) for index, part in enumerate(value)]
    else:
        yield path, str(value)
        return
    for name, part in parts:
        yield from _leaves(part, f"{path}.{name}" if path else name)


def _without_passwords(value: Any) -> Any:
    """Return a copy of a value, such as a nested mapping, with ``user:password@`` removed from its URLs."""
    if isinstance(value, Mapping):
        return {name: _without_passwords(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_without_passwords(part) for part in value]
    return _USER_INFO.sub(r"\1", value) if isinstance(value, str) else value
