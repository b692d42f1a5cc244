"""Warns if ``spec.resources.gpus`` differs from the number of GPUs that the planner would choose.

The run still uses the number in the spec.
"""

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
    """Return a warning if ``spec.resources.gpus`` is not the number that the planner would choose, else None.

    There is no warning if the planner's number is not known, or if the spec asks for 0 GPUs. With 0 GPUs the
    run uses the CPU. ``planned`` is the function that plans a spec.
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
        return f"{FIELD}: {asked} is used; the plan finds no number of GPUs on which the run fits: {error}"
    if made.gpus == asked:
        return None
    kind = made.accelerator or _kind(free)
    return f"{FIELD}: {asked} is used; the plan for {kind} needs {made.gpus}{_warning_end(spec, planned)}"


def _kind(spec: RFTJobSpec) -> str:
    accelerator = spec.resources.accelerator if spec.resources is not None else None
    return (accelerator.name or f"GPUs of {accelerator.memory}") if accelerator is not None else DEFAULT


def _warning_end(spec: RFTJobSpec, planned: Callable[[RFTJobSpec], Plan]) -> str:
    """Return the last words of a warning: that the run does not fit on the number of GPUs in the spec.

    Return "" if the run fits on this number, or if no plan can be made. ``planned`` is the function that
    plans a spec.
    """
    with suppress(Unplannable):
        if planned(spec).memory_parts is None:
            return ", and with that number the run does not fit"
    return ""
