"""Plans a job whose spec has the platform's defaults: values that administrators of a cluster set for jobs.

The plan lists the values that the job inherits.
"""

from typing import Any

from rft_api.defaults import CPU, Inheriting
from rft_api.job import RFTJobSpec
from rft_api.resources import Resources
from rft_api.status import Plan
from rft_planner import accelerators
from rft_planner.plan import CPU_NAME, Unplannable, plan


def asked_for(spec: RFTJobSpec) -> str | None:
    """Return the name of the accelerator that a spec asks for, or ``cpu`` for a run on the CPU.

    The job inherits the platform's defaults for this accelerator. If the spec does not mention accelerators,
    return the default accelerator: the nodes of the cluster are not considered. Return ``None`` if the spec
    gives the memory of a GPU, but not its name.
    """
    resources = spec.resources or Resources()
    if resources.gpus == 0:
        return CPU
    if resources.accelerator is None:
        return accelerators.DEFAULT
    return CPU if resources.accelerator.name == CPU_NAME else resources.accelerator.name


def planned(job: Inheriting, uid: str, **options: Any) -> Plan:
    """Return the plan of a job. The plan lists the fields that the job inherits from the platform's defaults.

    ``job`` has the spec with these defaults. ``uid`` is the job's UID. ``options`` are passed to ``plan``.

    Raises:
        Unplannable: no plan can be made. If the message names a field that the job inherits, the message says
            that the platform set this field.
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
    """Return a text to append to an error message: the fields in it that the platform set, and not the job.

    Return "" if the message names no such field.
    """
    named = [each for each in job.inherited if each.path in message]
    return "".join(f". The platform sets {each.path} for this job, by {each.from_}" for each in named)
