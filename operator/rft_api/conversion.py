"""Converts specs of RFTJobs from the API version v1alpha1 to a draft of v1beta1, and back, without a loss.

The functions are pure, and change no argument. No API server serves v1beta1 yet. The names and types of the
draft follow the API conventions of Kubernetes more closely. The tables here show that every stored spec can
be converted to the draft. ADR 0029 has the reasons.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

Json = dict[str, Any]
_ABSENT = object()


class Moved(NamedTuple):
    """A field whose path in v1beta1 (``beta``) differs from its path in v1alpha1 (``alpha``).

    The paths begin below ``spec``. ``[]`` in a path stands for each item of a list.
    """

    alpha: str
    beta: str


class Revalued(NamedTuple):
    """A field whose values have other spellings in v1beta1 than in v1alpha1.

    ``path`` is the path of the field in v1alpha1, below ``spec``.
    """

    path: str
    beta_of: Mapping[Any, Any]
    """For each value in v1alpha1, its value in v1beta1. No two values in v1beta1 are equal, so each can be
    converted back.
    """


def _capital(*values: str) -> dict[Any, Any]:
    """Return a map from the spelling of each value in v1alpha1 to its spelling in v1beta1.

    For example, ``all-linear`` is mapped to ``AllLinear``.
    """
    return {value: "".join(word[0].upper() + word[1:] for word in value.split("-")) for value in values}


_ON_ERROR = _capital("zero", "drop", "fail")
_ON_DELETION = {True: "Retain", False: "Delete"}

REVALUED = (
    Revalued("graders[].onError", _ON_ERROR),
    Revalued("graders[].reads", _capital("answer", "whole")),
    Revalued("graders[].numeric.extract", _capital("last", "first", "boxed", "marker")),
    Revalued("graders[].stringCheck.operation", _capital("equals", "notEquals", "contains")),
    Revalued("environment.onError", _ON_ERROR),
    Revalued("environment.tools", _capital("template", "text")),
    Revalued("training.loraTargets", _capital("all-linear", "attention")),
    Revalued(
        "training.objective",
        {"grpo": "GRPO", "dapo": "DAPO", "gspo": "GSPO", "drGrpo": "DrGRPO", "cispo": "CISPO"},
    ),
    Revalued("training.lossAggregation", _capital("token", "sequence", "maxTokens")),
    Revalued("training.schedule", _capital("constant", "linear", "cosine")),
    Revalued("output.adapter", _capital("final", "best")),
    Revalued("preflight", _capital("require", "warn", "off")),
    Revalued("storage.claimTemplate.retain", _ON_DELETION),
    Revalued("model.cache.claimTemplate.retain", _ON_DELETION),
)

_DATASETS = ("dataset", "evaluation.dataset")
_CLAIMS = ("storage.claimTemplate", "model.cache.claimTemplate")
_WITH_SECRET = (
    "model", "graders[].http", "graders[].model", "tracking.wandb", "tracking.mlflow", "output.hub",
    "template.env[]",
)  # fmt: skip

MOVED = (
    *(Moved(f"{owner}.secretRef", f"{owner}.secretKeyRef") for owner in _WITH_SECRET),
    *(
        Moved(f"{dataset}.{kind}", f"{dataset}.source.{kind}")
        for dataset in _DATASETS
        for kind in ("configMap", "persistentVolumeClaim", "uri")
    ),
    *(Moved(f"{claim}.size", f"{claim}.resources.requests.storage") for claim in _CLAIMS),
    *(Moved(f"{claim}.retain", f"{claim}.retentionPolicy.whenDeleted") for claim in _CLAIMS),
    Moved("resources.cpu", "resources.requests.cpu"),
    Moved("resources.cpuLimit", "resources.limits.cpu"),
    Moved("resources.memory", "resources.limits.memory"),
    Moved("resources.ephemeralStorage", "resources.limits.ephemeral-storage"),
    Moved("resources.shm", "resources.sharedMemory"),
    Moved("template.volumes[].persistentVolumeClaim", "template.volumes[].persistentVolumeClaim.claimName"),
    Moved("template.volumes[].configMap", "template.volumes[].configMap.name"),
    Moved("retry.limit", "retry.backoffLimit"),
    Moved("stop.deadline", "stop.deadlineTime"),
)


def to_beta(spec: Mapping[str, Any]) -> Json:
    """Convert a valid spec of v1alpha1 to a spec in the draft of v1beta1. Both are JSON objects."""
    beta = deepcopy(dict(spec))
    for path, values in REVALUED:
        _revalue(beta, path, values)
    for alpha, path in MOVED:
        _move(beta, alpha, path)
    return beta


def to_alpha(spec: Mapping[str, Any]) -> Json:
    """Convert a spec in the draft of v1beta1 to a spec of v1alpha1. Both are JSON objects."""
    alpha = deepcopy(dict(spec))
    for path, beta in reversed(MOVED):
        _move(alpha, beta, path)
    for path, values in reversed(REVALUED):
        _revalue(alpha, path, {beta: value for value, beta in values.items()})
    return alpha


def _revalue(spec: Json, path: str, values: Mapping[Any, Any]) -> None:
    *above, name = path.split(".")
    for owner in _objects(spec, above):
        if name in owner:
            owner[name] = values[owner[name]]


def _move(spec: Json, source: str, target: str) -> None:
    """Move each value in ``spec`` from the path ``source`` to the path ``target``, such as ``retry.limit``.

    Objects on the path ``source`` that become empty are removed, unless they are also on the path ``target``.
    """
    old, new = source.split("."), target.split(".")
    shared = 0
    # ``shared`` is the number of objects that both paths begin with. The last name of a path is not counted,
    # because it is a field and not an object.
    while shared < min(len(old), len(new)) - 1 and old[shared] == new[shared]:
        shared += 1
    for owner in _objects(spec, old[:shared]):
        value = _take(owner, old[shared:])
        if value is _ABSENT:
            continue
        for name in new[shared:-1]:
            owner = owner.setdefault(name, {})
        owner[new[-1]] = value


def _take(owner: Json, path: list[str]) -> Any:
    """Remove the value at ``path`` from the object ``owner``, and return the value.

    Return ``_ABSENT`` if there is no value. Objects on the path that become empty are removed too.
    """
    name, *below = path
    if not below:
        return owner.pop(name, _ABSENT)
    inner = owner.get(name)
    if not isinstance(inner, dict):
        return _ABSENT
    value = _take(inner, below)
    if value is not _ABSENT and not inner:
        del owner[name]
    return value


def _objects(value: Json, path: list[str]) -> Iterator[Json]:
    """Yield each object that exists at ``path`` in the object ``value``.

    The name ``graders[]`` in a path stands for each item of the list ``graders``. If the path is empty, yield
    ``value`` itself.
    """
    if not path:
        yield value
        return
    name, *below = path
    inner = value.get(name.removesuffix("[]"))
    for item in inner if isinstance(inner, list) else [inner]:
        if isinstance(item, dict):
            yield from _objects(item, below)
