"""``rft suspend``, ``rft resume`` and ``rft cancel``: set ``suspend`` or ``cancel`` in the spec of a job.

With ``--wait`` they also wait for the new phase.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer

from rft_api.conditions import RESTING_PHASES
from rft_cli.errors import INVALID, UserError
from rft_cli.options import Context, JobName, Namespace, connect, refuse_folder
from rft_cli.render.console import out, reports_errors
from rft_cli.render.jobs import INTERRUPTED, print_changes
from rft_cli.render.views import phase_of

Action = Literal["suspend", "resume", "cancel"]

CHANGES: dict[Action, dict[str, bool]] = {
    "suspend": {"suspend": True},
    "resume": {"suspend": False},
    "cancel": {"cancel": True},
}
REACHED: dict[Action, tuple[str, ...]] = {
    "suspend": ("Suspended",),
    "resume": ("Running",),
    "cancel": ("Cancelled",),
}
"""For each command, the phases of the job with which ``--wait`` stops waiting and exits with code 0."""

Wait = Annotated[
    bool, typer.Option("--wait", "-w", help="Follow the job until it is in the new phase, or ends.")
]


@reports_errors
def suspend(name: JobName, wait: Wait = False, context: Context = None, namespace: Namespace = None) -> None:
    """Suspend a job: save a checkpoint and free the GPUs.

    Exit code 1: the change is refused, or with --wait the job ends in another phase.
    """
    _carry_out("suspend", name, wait, context, namespace)


@reports_errors
def resume(name: JobName, wait: Wait = False, context: Context = None, namespace: Namespace = None) -> None:
    """Continue a suspended job from its checkpoint.

    Exit code 1: the change is refused, or with --wait the job ends in another phase.
    """
    _carry_out("resume", name, wait, context, namespace)


@reports_errors
def cancel(name: JobName, wait: Wait = False, context: Context = None, namespace: Namespace = None) -> None:
    """Save a checkpoint and end a job permanently. The run's folder is kept.

    Exit code 1: the change is refused, or with --wait the job ends in another phase.
    """
    _carry_out("cancel", name, wait, context, namespace)


def _carry_out(action: Action, name: str, wait: bool, context: str | None, namespace: str | None) -> None:
    refuse_folder(name)
    cluster = connect(context, namespace)
    job = cluster.job(name)
    if said := refusal(action, job):
        raise UserError(f"{name}: {said}", INVALID)
    change = CHANGES[action]
    done = f"spec.{next(iter(change))} is {str(next(iter(change.values()))).lower()}"
    if all((job["spec"].get(field) or False) == value for field, value in change.items()):
        out().print(f"{name}: {done} already; its phase is {phase_of(job)}", markup=False)
    else:
        cluster.change_spec(name, change)
        out().print(f"{name}: {done}", markup=False)
    if not wait:
        return
    try:
        phase = print_changes(cluster.changes(name), out(), (*REACHED[action], *RESTING_PHASES))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(0 if phase in REACHED[action] else INVALID)


def refusal(action: Action, job: Mapping[str, Any]) -> str | None:
    """Return why a job cannot be suspended, resumed or cancelled, and what to do instead.

    Return None if ``action`` is possible. ``job`` is the RFTJob as the API server returns it.
    """
    spec, status = job.get("spec") or {}, job.get("status") or {}
    # A job has ended if it has a completion time. The phase Invalid is no end: the job runs once its spec is
    # corrected.
    if status.get("completionTime"):
        return f"has ended: its phase is {phase_of(job)}, so there is nothing to {action}"
    if action != "cancel" and spec.get("cancel"):
        return f"is being cancelled, which is permanent: it is too late to {action} it; submit a new job"
    if action == "suspend" and "ephemeral" in (spec.get("storage") or {}):
        return (
            "spec.suspend must stay false with spec.storage.ephemeral, because checkpoints are lost with the"
            " pod; end the job with rft cancel, or submit a new job with a claim"
        )
    return None
