"""A number of GPUs that the user set and the plan would not: obeyed, and warned about."""

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
    """Return what the plan says against ``spec.resources.gpus``; ``None`` where it agrees or cannot know.

    ``planned`` makes the plan. 0 GPUs ask for the CPU, which contradicts nothing.
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
        return f"{FIELD}: {asked} is obeyed; by the plan no number of GPUs holds the run: {error}"
    if made.gpus == asked:
        return None
    kind = made.accelerator or _kind(free)
    return f"{FIELD}: {asked} is obeyed; the plan for {kind} needs {made.gpus}{_held(spec, planned)}"


def _kind(spec: RFTJobSpec) -> str:
    accelerator = spec.resources.accelerator if spec.resources is not None else None
    return (accelerator.name or f"GPUs of {accelerator.memory}") if accelerator is not None else DEFAULT


def _held(spec: RFTJobSpec, planned: Callable[[RFTJobSpec], Plan]) -> str:
    """Say so where the number that is obeyed does not hold the run."""
    with suppress(Unplannable):
        if planned(spec).memory_parts is None:
            return ", and with that number the run does not fit"
    return ""
