"""Warns where the number of GPUs in the spec is not the plan's. The spec's number is used in any case."""

from collections.abc import Callable
from contextlib import suppress

from rft_api.conditions import Reason
from rft_api.job import RFTJobSpec
from rft_api.status import Plan
from rft_planner.accelerators import DEFAULT
from rft_planner.plan import Unplannable, plan

FIELD = "spec.resources.gpus"


def contradiction(
    spec: RFTJobSpec, planned: Callable[[RFTJobSpec], Plan] = lambda spec: plan(spec, "")
) -> str | None:
    """Return a warning if ``spec.resources.gpus`` differs from the plan's number; else ``None``.

    ``None`` also means that the plan's number is not known. ``planned`` makes the plan. 0 GPUs request the
    CPU, which is never a difference.
    """
    asked = spec.resources.gpus if spec.resources is not None else None
    if not asked or spec.resources is None:
        return None
    free = spec.model_copy(update={"resources": spec.resources.model_copy(update={"gpus": None})})
    try:
        made = planned(free)
    except Unplannable as error:
        if error.reason != Reason.DOES_NOT_FIT:
            return None
        return f"{FIELD}: {asked} is obeyed; the plan finds no number of GPUs on which the run fits: {error}"
    if made.gpus == asked:
        return None
    kind = made.accelerator or _kind(free)
    return f"{FIELD}: {asked} is obeyed; the plan for {kind} needs {made.gpus}{_held(spec, planned)}"


def _kind(spec: RFTJobSpec) -> str:
    accelerator = spec.resources.accelerator if spec.resources is not None else None
    return (accelerator.name or f"GPUs of {accelerator.memory}") if accelerator is not None else DEFAULT


def _held(spec: RFTJobSpec, planned: Callable[[RFTJobSpec], Plan]) -> str:
    """Return a text if the run does not fit on the number of GPUs in the spec, else an empty one."""
    with suppress(Unplannable):
        if planned(spec).memory_parts is None:
            return ", and with that number the run does not fit"
    return ""
