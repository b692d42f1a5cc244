"""Reads the platform's defaults, and fills them into the specs of jobs.

The platform's defaults are values that the administrators of a cluster set for the RFTJobs of all users. They
are in the section ``jobDefaults`` of the values of the operator's Helm chart. The section has the form of a
part of the spec. A field of a job gets its value from the first of these places that has one:

- the job itself;
- the section of the job's accelerator, in ``jobDefaults.accelerators``;
- the rest of ``jobDefaults``.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import Field, ValidationError

from rft_api import rules
from rft_api.base import Model
from rft_api.job import RFTJobSpec
from rft_api.problems import InvalidManifest, Problem, from_validation_error
from rft_api.resources import Resources, Template
from rft_api.sources import ModelCache, Storage
from rft_api.status import Inherited, Plan

SECTION = "jobDefaults"
"""The name of the section in the values of the Helm chart. In messages, the paths of the section's fields
begin with this name.
"""
CPU = "cpu"
"""The key in ``jobDefaults.accelerators`` for jobs that use no GPU. The other keys are accelerators."""


class ModelDefaults(Model):
    """The platform's defaults for fields of ``spec.model`` that a job leaves out."""

    cache: ModelCache | None = Field(None, description="Volume for models from the hub.")


class ClaimDefaults(Model):
    """The platform's defaults for fields of ``spec.storage.claimTemplate`` that a job leaves out.

    A job without a claim template does not get them.
    """

    storage_class_name: str | None = Field(None, min_length=1, description="StorageClass of the claim.")


class StorageDefaults(Model):
    """The platform's defaults for fields of ``spec.storage`` that a job leaves out."""

    claim_template: ClaimDefaults | None = Field(None, description="The claim that the operator creates.")


class Defaults(Model):
    """The platform's defaults: values for fields of ``spec`` that a job leaves out."""

    template: Template | None = Field(None, description="Changes to the trainer's pod.")
    resources: Resources | None = Field(None, description="CPUs, memory, node labels and tolerations.")
    model: ModelDefaults | None = Field(None, description="Where models are kept.")
    storage: StorageDefaults | None = Field(None, description="How the claim of the run's folder is made.")


class JobDefaults(Defaults):
    """The platform's defaults for all jobs, and in ``accelerators`` further defaults by kind of GPU.

    The further defaults take precedence. Those for the key ``cpu`` are for jobs without GPUs.
    """

    accelerators: dict[str, Defaults] | None = Field(
        None, description="Defaults for the jobs on each kind of accelerator, by its name, or cpu."
    )


NO_DEFAULTS = JobDefaults()

MERGED_BY = {
    "spec.template.imagePullSecrets": ("name",),
    "spec.template.env": ("name",),
    "spec.template.resourceClaims": ("name",),
    "spec.template.volumes": ("name", "mount_path"),
    "spec.template.topologySpreadConstraints": ("topology_key",),
}
"""The lists in which a job gets the default items in addition to its own. Any other list of a job replaces
the default list.

The key is the path of a list. The value is the fields that identify an item, as in Kubernetes' strategic
merge. A default item is left out if an item of the job has the same value in one of these fields. Volumes are
also compared by their path, because a container mounts only one volume at a path.
"""
_EXCLUSIVE = (ModelCache, Storage)
"""Objects of which exactly one field is set. If the job sets one of the fields, the defaults for the other
fields are not used.
"""


class Inheriting(NamedTuple):
    """The spec of a job, with the platform's defaults in place of the fields that the job leaves out."""

    spec: RFTJobSpec
    inherited: tuple[Inherited, ...] = ()
    """The fields that the job left out, with the defaults that it got."""


_OWN = ("accelerator", "gpus", "gpu_claim")
"""Fields of ``resources`` that only a job sets, because they decide which defaults it inherits."""
_SMALLEST: dict[str, Any] = {
    "model": {"name": "any"},
    "dataset": {"uri": "./rows"},
    "graders": [{"name": "any", "numeric": {}}],
    "storage": {"claimTemplate": {"size": "1Gi"}},
}
"""A spec with the required fields only. The platform's defaults are filled into this spec, so that the rules
for specs can check the defaults.
"""


def read_defaults(value: object, accelerators: Collection[str]) -> JobDefaults:
    """Check and return the platform's defaults.

    - ``value``: the section ``jobDefaults`` of the values of the operator's Helm chart
    - ``accelerators``: the names of all kinds of GPU that the operator knows

    Raises:
        InvalidManifest: if a default is wrong. The error has all problems, each with the path of a key.
    """
    if not isinstance(value, Mapping):
        raise InvalidManifest([Problem(SECTION, f"{value!r} is not an object; write {SECTION}: {{}}")])
    try:
        defaults = JobDefaults.model_validate(value, by_alias=True, by_name=False)
    except ValidationError as error:
        found = from_validation_error(error, JobDefaults)
        raise InvalidManifest([each._replace(path=f"{SECTION}.{each.path}") for each in found]) from error
    if problems := list(_problems(defaults, accelerators)):
        raise InvalidManifest(problems)
    return defaults


def _problems(defaults: JobDefaults, accelerators: Collection[str]) -> Iterator[Problem]:
    if defaults.template is not None and defaults.template.image is not None:
        said = "is allowed below accelerators.NAME only; set the chart's trainer.image for all jobs"
        yield Problem(f"{SECTION}.template.image", said)
    yield from _of_section(SECTION, defaults)
    for name, section in (defaults.accelerators or {}).items():
        path = f"{SECTION}.accelerators.{name}"
        if name not in (*accelerators, CPU):
            yield Problem(path, f"is not in the catalogue; name one of: {', '.join((CPU, *accelerators))}")
        yield from _of_section(path, section)


def _of_section(path: str, section: Defaults) -> Iterator[Problem]:
    for name, info in Resources.model_fields.items():
        if name in _OWN and getattr(section.resources, name, None) is not None:
            yield Problem(f"{path}.resources.{info.alias}", "can only be set by the job; leave it out")
    smallest = RFTJobSpec.model_validate(_SMALLEST, by_alias=True)
    for problem in rules.problems(_with_layer(smallest, section, path, [])):
        yield problem._replace(path=path + problem.path.removeprefix("spec"))


def inherit(spec: RFTJobSpec, defaults: JobDefaults, accelerator: str | None) -> Inheriting:
    """Fill the platform's ``defaults`` into the fields that a job's spec leaves out.

    Return the new spec, and the list of the fields that got a default. ``accelerator`` has one of these
    values:

    - the operator's name of the job's kind of GPU, such as ``nvidia-l40s-48gb``;
    - ``cpu`` for a job without GPUs;
    - another name, or ``None``, if the operator does not know the kind of GPU. Then only the defaults for all
      jobs are used.
    """
    layers: list[tuple[str, Defaults]] = [(SECTION, defaults)]
    own = (defaults.accelerators or {}).get(accelerator or "")
    if own is not None:
        layers.insert(0, (f"{SECTION}.accelerators.{accelerator}", own))
    found: list[Inherited] = []
    for origin, layer in layers:
        spec = _with_layer(spec, layer, origin, found)
    return Inheriting(spec, tuple(found))


def accelerator_of(plan: Plan) -> str | None:
    """Return the key in ``jobDefaults.accelerators`` of the defaults that a job with this plan inherits.

    The key is ``cpu`` for a plan without GPUs, and the kind of GPU for any other plan. Return None if the
    plan does not name the kind of GPU.
    """
    return plan.accelerator if plan.gpus else CPU


def _with_layer(spec: RFTJobSpec, layer: Defaults, origin: str, found: list[Inherited]) -> RFTJobSpec:
    update: dict[str, Any] = {}
    for name in Defaults.model_fields:
        default = getattr(layer, name)
        # A model in a folder is not downloaded, so it needs no cache.
        if default is None or (name == "model" and spec.model.name.startswith("/")):
            continue
        update[name] = _filled(getattr(spec, name), default, f"spec.{name}", origin, found)
    return spec.model_copy(update=update) if update else spec


def _filled(own: Any, default: Any, path: str, origin: str, found: list[Inherited]) -> Any:
    """Return a value of a job's spec, in which the fields that the job leaves out are filled from a default.

    - ``own``: the job's value, or None if the job leaves it out
    - ``default``: the platform's default for this value
    - ``path``: the path of the value in the spec
    - ``origin``: the path of the section with the default, such as ``jobDefaults``
    - ``found``: a list, to which an entry is added for each field that got a default
    """
    if own is None:
        found += _leaves(default, path, origin)
        return default
    if isinstance(own, Model) and isinstance(default, Model):
        update = {}
        for name, info in type(default).model_fields.items():
            value, theirs = getattr(default, name), getattr(own, name)
            if value is not None and not (isinstance(own, _EXCLUSIVE) and theirs is None):
                update[name] = _filled(theirs, value, f"{path}.{info.alias or name}", origin, found)
        return own.model_copy(update=update)
    if isinstance(own, dict) and isinstance(default, dict):
        merged = {
            key: _filled(own.get(key), each, f"{path}.{key}", origin, found) for key, each in default.items()
        }
        return {**merged, **{key: each for key, each in own.items() if key not in default}}
    if path in MERGED_BY:
        keys = MERGED_BY[path]
        added = [item for item in default if not any(_same(item, theirs, keys) for theirs in own)]
        found += _leaves(added, path, origin)
        return [*added, *own]
    return own


def _same(one: Model, other: Model, keys: tuple[str, ...]) -> bool:
    return any(getattr(one, key) == getattr(other, key) for key in keys)


def _leaves(value: Any, path: str, origin: str) -> Iterator[Inherited]:
    """Yield an entry for the status for each field of a default value that a job inherits.

    - ``value``, ``path``: the default value, and its path in the job's spec
    - ``origin``: the path of the section with the default, such as ``jobDefaults``

    A list gets one entry. But a list in ``MERGED_BY`` gets one entry for each of its items.
    """
    if isinstance(value, Model):
        for name, info in type(value).model_fields.items():
            if getattr(value, name) is not None:
                yield from _leaves(getattr(value, name), f"{path}.{info.alias or name}", origin)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves(each, f"{path}.{key}", origin)
    elif path in MERGED_BY:
        for item in value:
            name = f"[{getattr(item, MERGED_BY[path][0])}]"
            yield _entry(f"{path}{name}", item.dump(), origin)
    else:
        yield _entry(path, _plain(value), origin)


def _plain(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return [item.dump() if isinstance(item, Model) else item for item in value]


def _entry(path: str, value: Any, origin: str) -> Inherited:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return Inherited(path=path, value=text, from_=origin + path.removeprefix("spec"))
