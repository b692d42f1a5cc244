"""Plans a job with the platform's defaults. The plan lists the defaults that the job inherits."""

from typing import Any

from rft_api.defaults import CPU, Inheriting
from rft_api.job import RFTJobSpec
from rft_api.resources import Resources
from rft_api.status import Plan
from rft_planner import accelerators
from rft_planner.plan import CPU_NAME, Unplannable, plan


def asked_for(spec: RFTJobSpec) -> str | None:
    """Return the accelerator whose defaults a job inherits, from the spec alone.

    The nodes of the cluster are not considered. Return ``None`` if the spec gives the memory of a GPU, but
    not its name.
    """
    resources = spec.resources or Resources()
    if resources.gpus == 0:
        return CPU
    if resources.accelerator is None:
        return accelerators.DEFAULT
    return CPU if resources.accelerator.name == CPU_NAME else resources.accelerator.name


def planned(job: Inheriting, uid: str, **options: Any) -> Plan:
    """Return the plan of a spec with the platform's defaults. ``options`` are passed to ``plan``.

    Raises:
        Unplannable: as ``plan`` does. If the platform set a field that the message names, the message says
            so.
    """
    try:
        made = plan(job.spec, uid, **options)
    except Unplannable as error:
        raise Unplannable(error.reason, f"{error}{_origins(str(error), job)}") from error
    if not job.inherited or made.effective is None:
        return made
    noted = made.effective.model_copy(update={"inherited": list(job.inherited)})
    return made.model_copy(update={"effective": noted})


def _origins(message: str, job: Inheriting) -> str:
    """Return a text to append to ``message``. It says which fields in the message were set by the platform,
    and not by the job.
    """
    named = [each for each in job.inherited if each.path in message]
    return "".join(f". The platform sets {each.path} for this job, by {each.from_}" for each in named)
