"""Makes, reads, writes and compares ``run.json``, the trainer's configuration for a run on this machine.

A run can be resumed only if its inputs and its spec are unchanged, except for the fields of the spec in
``CHANGEABLE``.
"""

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from rft_api.conditions import Reason
from rft_api.effective import effective
from rft_api.job import MUTABLE_AFTER_START, MUTABLE_WHILE_SUSPENDED, RFTJob, RFTJobSpec
from rft_api.parameters import Dtype
from rft_api.problems import join_path
from rft_api.resources import Resources
from rft_api.status import Plan
from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_cli.local.device import Hardware
from rft_cli.local.inputs import Inputs
from rft_cli.local.shapes import UntrainableModel, shape_for
from rft_planner.container import memory_check_disabled
from rft_planner.placement import for_kind
from rft_planner.plan import Unplannable, plan
from rft_planner.precision import SAFE, fast_cpu_dtype
from rft_planner.sizes import mib, quantity
from rft_run import atomic, run_files, wire
from rft_run.config import JobIdentity, RunConfig
from rft_run.folder import RunFolder

CHANGEABLE = frozenset(
    RFTJobSpec.model_fields[name].alias or name
    for name in (*MUTABLE_AFTER_START, *MUTABLE_WHILE_SUSPENDED, "storage")
)
"""Names of the fields of the spec that may change when a run on this machine is resumed.

``storage`` is one of them, because such a run does not use it: it writes into the folder of ``--output``."""


class FieldChange(NamedTuple):
    """A field that has changed since the run was started, with its old and its new value.

    ``path`` is the field's path, such as ``spec.training.seed``.
    """

    path: str
    before: object
    after: object

    def __str__(self) -> str:
        return f"{self.path}: was {_show(self.before)}, is now {_show(self.after)}"


def previous(folder: Path) -> RunConfig | None:
    """Return the configuration of the run in ``folder`` from its ``run.json``, or None if there is no such
    file.

    Raises:
        UserError: if the file exists, but this release cannot read it.
    """
    path = RunFolder(folder).config
    if not path.exists():
        return None
    try:
        return wire.read(RunConfig, run_files.content(path))
    except ValidationError as error:
        detail = f"{error.error_count()} fields are wrong"
    except (OSError, ValueError) as error:
        detail = str(error)
    raise UserError(
        f"{path}: is not a run that this version of rft can read ({detail}); name a new folder with --output",
        UNREADABLE,
    )


def build(
    job: RFTJob, inputs: Inputs, hardware: Hardware, folder: Path, before: RunConfig | None
) -> RunConfig:
    """Return the trainer's configuration for a run of ``job`` on this machine.

    - ``inputs``: the datasets and the graders' code
    - ``hardware``: the CPU or the GPUs that the run may use
    - ``folder``: the run's folder
    - ``before``: the configuration with which the run was started; None for a new run

    A resumed run keeps the UID and the derived parameters of ``before``. Without this, another release could
    derive other parameters. Raises UserError if the job cannot run on this machine.
    """
    uid = before.job.uid if before is not None else job.metadata.uid or str(uuid.uuid4())
    derived = before.effective if before is not None else None
    optional: dict[str, Any] = {}
    if inputs.evaluation is not None:
        optional["evaluation_path"] = inputs.evaluation.location
    if inputs.graders:
        optional["grader_code"] = {name: given.location for name, given in inputs.graders.items()}
    made = planned(job, hardware, _cpu_dtype(before))
    if made is not None:
        optional["plan"] = made
    asked = job.spec.resources.gpus if job.spec.resources is not None else None
    return RunConfig(
        job=JobIdentity(name=job.metadata.name, namespace=job.metadata.namespace, uid=uid),
        spec=job.spec,
        effective=derived or effective(job.spec, uid, model_context_length(job.spec)),
        device=hardware.device,
        gpus=made.gpus if made is not None and hardware.gpus else min(hardware.gpus, asked or 1),
        run_dir=str(folder),
        dataset_path=inputs.dataset.location,
        **optional,
    )


def _cpu_dtype(before: RunConfig | None) -> Dtype:
    """Return the dtype of the weights for a job that runs on the CPU and sets no dtype.

    ``before`` is the configuration of a resumed run, or None for a new run. A resumed run keeps its dtype,
    even on a machine that is faster with another dtype. Raises UserError if ``RFT_CPU_DTYPE`` names no dtype.
    """
    started_in = before.plan.dtype if before is not None and before.plan is not None else None
    try:
        return started_in or fast_cpu_dtype()
    except ValueError as error:
        raise UserError(str(error), INVALID) from error


def planned(job: RFTJob, hardware: Hardware, cpu_dtype: Dtype = SAFE) -> Plan | None:
    """Return the plan (resources and derived parameters) of a run on this machine. Return None if no plan can
    be made.

    On GPUs it is the plan that the operator would make for a node with these GPUs. On the CPU, the plan
    requests less memory than usual if the machine has less memory, but never less than the minimum that the
    run needs. ``cpu_dtype`` is the dtype on the CPU for jobs that set none.

    Raises:
        UserError: if the run needs more GPUs than this machine has, or more memory than the GPUs have; if a
            run on the CPU needs more memory than ``spec.resources.memory`` requests; or if the model cannot
            be trained.
    """
    if hardware.gpus:
        return _planned_on_gpus(job.spec, hardware)
    given = job.spec.resources or Resources()
    on_cpu = job.spec.model_copy(update={"resources": given.model_copy(update={"gpus": 0})})
    forced = memory_check_disabled(job.metadata.annotations)
    try:
        read = shape_for(job.spec.model, None, hub=False)
        shape = read.shape if read is not None else None
        made = plan(on_cpu, "", shape=shape, force_memory=forced, cpu_dtype=cpu_dtype)
        fitting = within(made, total_memory())
        if fitting is None:
            return made
        resources = given.model_copy(update={"gpus": 0, "memory": fitting})
        smaller = job.spec.model_copy(update={"resources": resources})
        return plan(smaller, "", shape=shape, cpu_dtype=cpu_dtype)
    except Unplannable as error:
        if error.reason in (Reason.DOES_NOT_FIT, Reason.UNTRAINABLE_MODEL):
            raise UserError(str(error), INVALID) from error
    except UntrainableModel:
        raise
    except UserError:  # the config.json has no known shape: the trainer's error will say what is missing
        pass
    return None


def _planned_on_gpus(spec: RFTJobSpec, hardware: Hardware) -> Plan | None:
    """Return the plan of a run on the GPUs of this machine. Return None if the kind of the GPUs or the size
    of the model is not known.

    If the spec sets a number of GPUs, the plan is made for this number, but at most all GPUs of this machine,
    even if the run does not fit on them. In a cluster, such a number is used in the same way.

    Raises:
        UserError: if the plan needs more GPUs than this machine has, or the model cannot be trained.
    """
    if hardware.kind is None:
        return None
    asked = for_kind(spec, hardware.kind)
    given = asked.resources or Resources()
    if given.gpus is not None:
        given = given.model_copy(update={"gpus": hardware.gpus})
        asked = asked.model_copy(update={"resources": given})
    try:
        read = shape_for(spec.model, None, hub=False)
        made = plan(asked, "", shape=read.shape if read is not None else None)
    except Unplannable as error:
        if error.reason in (Reason.DOES_NOT_FIT, Reason.UNTRAINABLE_MODEL):
            raise UserError(str(error), INVALID) from error
        return None
    except UntrainableModel:
        raise
    except UserError:  # the config.json has no known shape: the trainer's error will say what is missing
        return None
    if made.gpus <= hardware.gpus:
        return made
    raise UserError(
        f"the plan needs {made.gpus} GPUs of the kind {hardware.kind.title}, and this machine has"
        f" {hardware.gpus}: {'; '.join(made.notes or [])}. Use a smaller model, lower"
        f" spec.training.maxContextLength, or set spec.resources.gpus: {hardware.gpus} to try it anyway",
        INVALID,
    )


def within(made: Plan, memory: float) -> str | None:
    """Return a lower memory request for the plan ``made``, if the plan requests more memory than this machine
    has.

    ``memory`` is the memory of the machine in bytes. The result is this amount as a Kubernetes quantity, such
    as ``512Mi``. It is None if the plan's request must not change, for one of these reasons:

    - The machine has less than the minimum of the plan.
    - The machine has as much as the plan requests, or more.
    - The plan has no memory request.
    - An annotation of the job allows the plan to request less than its minimum (``made.forced``).
    """
    if made.forced or made.least_memory is None or made.memory is None:
        return None
    return mib(memory) if quantity(made.least_memory) <= memory < quantity(made.memory) else None


def total_memory() -> int:
    """Return the size of this machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def model_context_length(spec: RFTJobSpec) -> int | None:
    """Return the maximum context length of the job's model in tokens, from the model's ``config.json``.

    Return None if the model is not a folder on this machine, or if the file has no context length.
    """
    try:
        config = json.loads((Path(spec.model.name) / "config.json").read_text(encoding="utf-8"))
        length = config.get("max_position_embeddings")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return length if isinstance(length, int) else None


def refuse_changes(folder: Path, before: RunConfig, now: RunConfig, inputs: Inputs) -> None:
    """Check that a run can be resumed: nothing has changed that must stay the same.

    - ``folder``: the folder of the run
    - ``before``: the configuration with which the run was started
    - ``now``: the configuration with which the run would be resumed
    - ``inputs``: the input files with which the run would be resumed

    Raises:
        UserError: if the name of the job, the content of an input, or a field of the spec that is not in
            ``CHANGEABLE`` changed. The message lists all changes.
    """
    changes = [change for change in spec_changes(before.spec, now.spec) if not _may_change(change.path)]
    changes += [FieldChange(field, *pair) for field, pair in _changed_inputs(folder, inputs).items()]
    if before.job.name != now.job.name:
        changes.insert(0, FieldChange("metadata.name", before.job.name, now.job.name))
    if changes:
        lines = "\n".join(f"  {change}" for change in changes)
        raise UserError(
            f"{folder} has a run with another spec, name or input:\n{lines}\n"
            "Name a new folder with --output to start anew, or undo the changes to resume.",
            INVALID,
        )


def save(folder: Path, config: RunConfig, inputs: Inputs) -> Path:
    """Write everything that the trainer needs for a run into ``folder``: the inputs, their digests, and the
    configuration ``run.json``. Return the path of ``run.json``.
    """
    run = RunFolder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for given in inputs.named().values():
        given.write()
    digests = {field: given.digest() for field, given in inputs.named().items()}
    _write(run.digests, digests)
    _write(run.config, config.dump())
    return run.config


def spec_changes(before: RFTJobSpec, now: RFTJobSpec) -> list[FieldChange]:
    """Compare two specs. Return the fields with different values, in the order of the spec.

    If a spec does not set a field, the field has its default value.
    """
    return [
        FieldChange(join_path(("spec", *loc)), old, new)
        for loc, old, new in _differences(before.dump(), now.dump(), ())
    ]


def _differences(
    old: Any, new: Any, loc: tuple[int | str, ...]
) -> Iterator[tuple[tuple[int | str, ...], Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _differences(old.get(key), new.get(key), (*loc, key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (left, right) in enumerate(zip(old, new, strict=True)):
            yield from _differences(left, right, (*loc, i))
    elif old != new:
        yield loc, old, new


def _may_change(path: str) -> bool:
    return path.split(".")[1] in CHANGEABLE


def _changed_inputs(folder: Path, inputs: Inputs) -> dict[str, tuple[str, str]]:
    try:
        before = run_files.json_of(RunFolder(folder).digests)
    except (OSError, ValueError):
        return {}
    now = {field: given.digest() for field, given in inputs.named().items()}
    # An older release did not read the helper files. Its runs have no digests of them to compare with.
    compared = {field for field in now if field in before or field not in inputs.helpers()}
    return {
        f"content of {field}": (_short(before.get(field)), _short(now.get(field)))
        for field in sorted({*before, *compared})
        if before.get(field) != now.get(field)
    }


def _short(digest: str | None) -> str:
    return f"sha256 {digest[:12]}" if digest is not None else "no file on this machine, so no digest"


def _show(value: object) -> str:
    text = "not set" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _write(path: Path, body: dict[str, Any]) -> None:
    atomic.write_text(path, json.dumps(body, indent=2, ensure_ascii=False) + "\n")
