"""Cases for the parity tests. A case is a manifest with its expected verdict.

There are cases for each limit of each field, and for each rule across fields. A case changes one thing in a
valid manifest. The expected verdict comes from the annotations of the pydantic models, never from a gate.
"""

import copy
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from rft_api import ahead
from rft_api.base import Model
from rft_api.environment import Environment, EnvironmentPython
from rft_api.forms import FIELD_PATH, HUB_BRANCH, HUB_REPOSITORY, LABEL, S3_FOLDER
from rft_api.graders import GRADER_KINDS, Grader, Numeric, Python, Scale
from rft_api.job import MAX_NAME_LENGTH, RFTJobSpec
from rft_api.lifecycle import ResultTarget
from rft_api.parameters import Sampling, Training
from rft_api.resources import EnvVarSource, ExtraVolume, PodResourceClaim
from rft_api.sources import Dataset, ModelCache, Storage
from rft_graders import ahead as graders_ahead

Object = dict[str, Any]
Place = Callable[[Any], Object]
"""A function that puts a value into a certain place of a valid manifest, and returns the manifest."""

LARGEST = 2**63 - 1
SMALLEST = -(2**63)


class Sight(Enum):
    """Properties of manifests that only some gates can check."""

    DOCUMENT = "the manifest changes a field outside of the spec"
    UNKNOWN = "the manifest has a field that is not in the schema"
    NULL = "a field without a default is null"
    SCALAR = "a field that accepts any scalar has a list or an object"
    NOT_JSON = "a number, such as infinity, cannot be written in JSON"
    EMPTY = "a field has an empty text, which some servers treat as null"
    FLOAT = "a whole number is written as 8.0"
    FORM = "the form is valid, but the run would fail later; only rft validate and the webhook refuse this"
    FIELD_RULE = "a CEL rule of the CRD checks the form of a text, or a bound that is not a whole number"


@dataclass(frozen=True)
class Case:
    """A manifest, and the verdict that is expected for it."""

    name: str
    manifest: Object
    refused_at: str | None = None
    """Path of the field that the refusal must name. None: the manifest is valid."""
    takes: frozenset[Sight] = frozenset()
    """Properties of the manifest. Only gates that can check all of them get this case."""
    rule: str = ""
    """Name of the rule across fields that the manifest breaks. Empty if it breaks none."""
    or_at: str | None = None
    """Path of another field that the refusal may name instead. None: only ``refused_at`` is correct."""
    across_fields: bool = False
    """Whether the manifest breaks a rule across fields, or is just within the limit of such a rule."""


class Value(NamedTuple):
    """A value to test in a field."""

    what: str
    value: Any
    below: str | None = None
    """The place that the refusal must name, relative to the field. None: the value is valid.

    The text is appended to the field's path. ``""`` is the field itself, and ``[0]`` its first item.
    """
    takes: frozenset[Sight] = frozenset()


class Kind(NamedTuple):
    """The type of a field without ``| None``, and the field's limits by name, e.g. ``ge``."""

    type: Any
    limits: dict[str, Any]


class _Absent:
    """Class of the placeholder for a field that is absent from a manifest."""


ABSENT = _Absent()

ALTERNATIVES: dict[type[Model], tuple[str, ...]] = {
    Dataset: ("config_map", "persistent_volume_claim", "uri"),
    Storage: ("persistent_volume_claim", "claim_template", "ephemeral"),
    ModelCache: ("persistent_volume_claim", "claim_template"),
    ResultTarget: ("hub", "s3"),
    Grader: GRADER_KINDS,
    Python: ("inline", "config_map"),
    EnvironmentPython: ("inline", "config_map"),
    ExtraVolume: ("persistent_volume_claim", "config_map"),
    PodResourceClaim: ("resource_claim_name", "resource_claim_template_name"),
    EnvVarSource: ("secret_key_ref", "config_map_key_ref", "field_ref", "resource_field_ref"),
}
"""For each pydantic model: its fields of which exactly one must be set. ``sample`` sets the first of them."""

ROOM: dict[type[Model], Object] = {
    Training: {"batchSizeTokens": LARGEST},
    Sampling: {"maxTokens": 16},
}
"""For each pydantic model: values of some of its fields for ``sample``.

With other values, a rule across fields would allow only a part of the range of another field.
"""

PATTERNS: dict[str, tuple[list[str], list[str]]] = {
    r"^[0-9]+(\.[0-9]+)?[MBT]$": (["7B", "0.5B", "135M", "1T"], ["7", "B", "7b", "7B\n", "٧B", " 7B", ".5B"]),
    r"^[^/].*$": (["train.jsonl", "a/b"], ["/a", "a\nb"]),
    r"^([a-z0-9]+://|[./]).+": (["s3://bucket/rows", "./rows", "/rows"], ["rows", "S3://b/r", "."]),
    r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$": (["20Gi", "1.5T", "5"], ["20gb", "Gi", "20Gi\n", "-1Gi"]),
    r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti|k|M|G|T)?$": (["500m", "4", "1.5Gi"], ["4 cores", "", "4\n", "٤"]),
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$": (["a", "a-1", "0"], ["A", "-a", "a-", "a_b", "a\n", "ä", "a.b"]),
    r"^[A-Za-z_][A-Za-z0-9_]*$": (["grade", "_g1", "G"], ["1a", "a-b", "gräde", "a\n", "a٣", ""]),
    r"^https?://.+": (["http://h", "https://h/p"], ["ftp://h", "http://", "HTTP://h", " http://h"]),
    r"^/.+": (["/data"], ["data", "/", ""]),
    HUB_REPOSITORY.pattern: (
        ["a/b", "my-team/my.adapter_2", "_a/0"],
        ["a", "a/", "a/b/c", "a/b--c", "a/-b", "a/b.", "ä/b", "a/b\n", "a /b", "hf://a/b"],
    ),
    HUB_BRANCH.pattern: (
        ["main", "v1.0", "a/b-c", "refs/pr/1"],
        ["", "a b", "/a", "a/", "-a", "ä", "a\n", "a@b"],
    ),
    S3_FOLDER.pattern: (
        ["s3://bucket/a", "s3://b-1.c/a/b=c/d.e", "s3://bucket/_a"],
        [
            "s3://bucket",
            "s3://bucket/",
            "S3://bucket/a",
            "s3://Bucket/a",
            "gs://bucket/a",
            "s3://bucket/a//b",
        ],
    ),
    FIELD_PATH.pattern: (
        [
            "metadata.name",
            "metadata.labels['team']",
            "metadata.annotations['a.b/c']",
            "spec.nodeName",
            "status.podIPs",
        ],
        ["metadata", "name", "metadata.labels", "metadata.labels['']", "spec.containers", "status.podIP\n"],
    ),
    r"^2[0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$": (
        ["2027-01-31T18:00:00Z"],
        [
            "2027-01-31",
            "1999-01-31T18:00:00Z",
            "2027-01-31T18:00:00",
            "2027-01-31T18:00:00Z\n",
            "٢٠٢٧-01-31T18:00:00Z",
        ],
    ),
}
"""For each pattern: texts that match it, then texts that do not match."""


@cache
def cases() -> tuple[Case, ...]:
    """Return all cases. The last ones are about rules across fields."""
    return tuple(map(_with_its_future, (*_metadata_cases(), *_spec_cases(), *_rule_cases())))


def _with_its_future(case: Case) -> Case:
    """Return the case. Add ``Sight.FORM`` if schema and rules accept its manifest, but its run would fail
    later.

    An example is an invalid regex. Only ``rft validate`` and the webhook refuse such a manifest.
    """
    if case.refused_at is not None:
        return case
    spec = RFTJobSpec.model_validate(case.manifest["spec"], by_alias=True, by_name=False)
    fails = ahead.problems(spec) or graders_ahead.problems(spec, {})
    local = [source.uri or "" for source in (spec.dataset, spec.evaluation.dataset) if source is not None]
    if fails or any(uri.startswith(".") for uri in local):
        return replace(case, takes=case.takes | {Sight.FORM})
    return case


def manifest(spec: Any) -> Object:
    """Return an RFTJob with this spec."""
    document = {"apiVersion": "rft.dev/v1alpha1", "kind": "RFTJob", "metadata": {"name": "job"}}
    return document if spec is ABSENT else {**document, "spec": copy.deepcopy(spec)}


# Samples: valid objects.


def sample(model: type[Model], given: Object | None = None) -> Object:
    """Return a valid object: the fields in ``given``, the required fields, and the fields of ``ROOM``.

    A field that is ``ABSENT`` in ``given`` is left out.
    """
    given = given or {}
    filled = {**ROOM.get(model, {}), **_companions(model, given)}
    for name, info in model.model_fields.items():
        if info.is_required():
            filled.setdefault(alias(name, info), good(kind_of(info)))
    if model is RFTJobSpec:
        filled |= {"training": sample(Training), "sampling": sample(Sampling)}
    group = ALTERNATIVES.get(model, ())
    names = [alias(name, model.model_fields[name]) for name in group]
    if names and not any(given.get(name, ABSENT) is not ABSENT for name in names):
        # Do not set a field that the case leaves out.
        first = next(name for name in names if name not in given)
        field = group[names.index(first)]
        filled[first] = good(kind_of(model.model_fields[field]))
    return {key: value for key, value in {**filled, **given}.items() if value is not ABSENT}


def _companions(model: type[Model], given: Object) -> Object:
    """Return the further fields that rules across fields require when the fields ``given`` are set."""
    if model is Scale:
        return {"max": 1.5e308} if "min" in given else {"min": -1.5e308}
    stop = given.get("stop")
    if model is RFTJobSpec and given.get("graders") == []:
        return {"environment": sample(Environment)}
    if model is RFTJobSpec and isinstance(stop, dict) and stop.get("canary", ABSENT) is not ABSENT:
        return {"graders": [sample(Grader, {"name": "canary", "weight": 0}), sample(Grader)]}
    resources = given.get("resources")
    claim = resources.get("gpuClaim") if isinstance(resources, dict) else None
    if model is RFTJobSpec and isinstance(claim, str) and LABEL.has(claim):
        return {"template": {"resourceClaims": [{"name": claim, "resourceClaimName": "c"}]}}
    if model is Numeric and given.get("extract") == "marker":
        return {"marker": "####"}
    if model is Numeric and isinstance(given.get("marker"), str):
        return {"extract": "marker"}
    return {}


def good(kind: Kind) -> Any:
    """Return the first valid value that ``values`` yields."""
    return next(value.value for value in values(kind) if value.below is None)


def alias(name: str, info: FieldInfo) -> str:
    """Return the name that a field has in a manifest."""
    return info.alias or name


def kind_of(info: FieldInfo) -> Kind:
    """Return the type of a field and the limits of its values."""
    return _kind(info.annotation, [*info.metadata, info])


def _kind(annotation: Any, metadata: list[Any]) -> Kind:
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _kind(inner, [*metadata, *more])
    options = [a for a in get_args(annotation) if a is not NoneType]
    if get_origin(annotation) in (Union, UnionType) and len(options) == 1:
        return _kind(options[0], metadata)
    inner = [constraint for m in metadata if isinstance(m, FieldInfo) for constraint in m.metadata]
    names = ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern")
    limits = {n: v for m in (*inner, *metadata) for n in names if (v := getattr(m, n, None)) is not None}
    extra = [m.json_schema_extra for m in metadata if isinstance(m, FieldInfo)]
    keys = [e.get("x-kubernetes-list-map-keys") for e in extra if isinstance(e, dict)]
    return Kind(annotation, {**limits, **({"key": keys[0][0]} if keys and keys[0] else {})})  # type: ignore[index]


# Values: the limits of each type.


def values(kind: Kind) -> Iterator[Value]:
    """Yield valid and invalid values of a type. The first one is valid."""
    origin, arguments = get_origin(kind.type), get_args(kind.type)
    if kind.type is int:
        yield from _int_values(kind.limits)
    elif kind.type is float:
        yield from _float_values(kind.limits)
    elif kind.type is str:
        yield from _str_values(kind.limits)
    elif kind.type is bool:
        yield from (Value("true", True), Value("false", False))
        yield from _wrong("true", 1, 0, 1.0, [], {})
    elif origin is Literal:
        yield from _enum_values(arguments)
    elif origin is list:
        yield from _list_values(_kind(arguments[0], []), kind.limits)
    elif origin is dict:
        yield from _dict_values(_kind(arguments[1], []), kind.limits)
    elif isinstance(kind.type, type) and issubclass(kind.type, Model):
        yield Value("as it is", sample(kind.type))  # the only valid value, because good() uses the first one
        yield from _wrong("text", 3, True, [], [sample(kind.type)])
    else:
        raise NotImplementedError(f"there are no test values for the type {kind.type}")


def _wrong(*wrong: Any, below: str = "") -> Iterator[Value]:
    yield from (Value(f"{type(each).__name__} {each!r:.30}", each, below) for each in wrong)


def _int_values(limits: dict[str, Any]) -> Iterator[Value]:
    low, high = limits.get("ge", SMALLEST), limits.get("le", LARGEST)
    yield from (Value("lowest", low), Value("highest", high))
    if abs(low) < 2**53:
        yield Value("lowest, as a float", float(low), takes=frozenset({Sight.FLOAT}))
        yield Value("a fraction", low + 0.5, "")
        # The API server does not treat a larger float as a whole number.
    yield from (Value("just below", low - 1, ""), Value("just above", high + 1, ""))
    yield from (Value("beyond 64 bits", 2**63, ""), Value("1e30", 1e30, ""))
    yield from _wrong(str(max(low, 1)), True, [], {}, [low])


def _float_values(limits: dict[str, Any]) -> Iterator[Value]:
    low, high = limits.get("ge", limits.get("gt", -1e308)), limits.get("le", limits.get("lt", 1e308))
    lowest = math.nextafter(low, math.inf) if "gt" in limits else low
    highest = math.nextafter(high, -math.inf) if "lt" in limits else high
    yield from (Value("lowest", lowest), Value("highest", highest))
    by_rule = _is_fraction(low) or _is_fraction(high)
    takes = frozenset({Sight.FIELD_RULE}) if by_rule else frozenset()
    if "ge" in limits or "gt" in limits:
        yield Value("just below", math.nextafter(lowest, -math.inf), "", takes)
        yield Value("far below", low - 1, "", takes)
    if "le" in limits or "lt" in limits:
        yield Value("just above", math.nextafter(highest, math.inf), "", takes)
        yield Value("far above", high + 1, "", takes)
    if by_rule:
        beyond = {math.floor(low), math.ceil(high)}
        yield from (Value(f"whole {n}", n, "", takes) for n in sorted(beyond) if not low <= n <= high)
    whole = math.ceil(lowest)
    if abs(whole) < 2**53 and whole <= highest:
        yield Value("a whole number", whole)
    not_json = frozenset({Sight.NOT_JSON})
    yield from (Value(f"{value}", value, "", not_json) for value in (math.nan, math.inf, -math.inf))
    yield from _wrong(str(lowest), True, [], {})


def _is_fraction(bound: float) -> bool:
    return abs(bound) < 2**53 and not float(bound).is_integer()


def _str_values(limits: dict[str, Any]) -> Iterator[Value]:
    low, high = limits.get("min_length", 0), limits.get("max_length")
    if (pattern := limits.get("pattern")) is not None:
        matches, others = PATTERNS[pattern]
        yield from (Value(f"match {text!r}", text) for text in matches)
        patterned = frozenset({Sight.FIELD_RULE})
        yield from (Value(f"no match {text!r}", text, "", _empty(text) | patterned) for text in others)
    else:
        texts = (
            "text",
            "some text",
            "ü 😀",
            "true",
            "1e-4",
            "x\n",
            "x" * (high or 10_000),
            "x" * max(low, 1),
        )
        yield from (Value(f"text {text!r:.20}", text) for text in texts)
        yield Value("empty", "", "" if low else None, _empty(""))
    if low > 1:
        yield Value("too short", "x" * (low - 1), "")
    if high is not None:
        yield from (Value("longest", text, takes=frozenset({Sight.FORM})) for text in _grown(pattern, high))
        yield from (Value("too long", text, "") for text in _grown(pattern, high + 1) or ["a" * (high + 1)])
    yield from _wrong(3, 1.5, True, [], {}, ["text"])


def _grown(pattern: str | None, length: int) -> list[str]:
    """Return a list with one text of ``length`` characters that matches ``pattern``.

    The text is a shorter valid text whose first or last character is repeated. If no such text matches, the
    list is empty.
    """
    found = []
    for text in PATTERNS[pattern][0] if pattern is not None else ["a"]:
        more = length - len(text)
        found += [text + text[-1] * more, text[0] * more + text]
    return [text for text in found if re.search(pattern or "", text)][:1]


def _empty(text: str) -> frozenset[Sight]:
    return frozenset() if text else frozenset({Sight.EMPTY})


def _enum_values(options: tuple[Any, ...]) -> Iterator[Value]:
    yield from (Value(f"{option!r}", option) for option in options)
    if isinstance(options[0], int):
        yield from (Value(f"{option}.0", float(option)) for option in options)
        yield from _wrong(max(options) + 1, options[0] + 0.5, str(options[0]), True, [], {})
    else:
        yield from _wrong("none of them", f"{options[0]}\n", options[0].swapcase(), 3, True, [], {})


def _list_values(item: Kind, limits: dict[str, Any]) -> Iterator[Value]:
    low, high = limits.get("min_length", 0), limits.get("max_length", 3)
    yield Value("one", [good(item)])
    yield Value("most", _different(item, high))
    yield Value("empty", [], "" if low else None)
    if "max_length" in limits:
        yield Value("too many", _different(item, high + 1), "")
    yield Value("null within", [None], "[0]")
    if "key" in limits:
        yield Value("the same twice", [good(item), good(item)], "[1]")
    yield from _wrong("text", 3, True, {}, {"0": good(item)})


def _different(item: Kind, count: int) -> list[Any]:
    """Return ``count`` valid items. If items have a name, all names are different."""
    if isinstance(item.type, type) and issubclass(item.type, Model) and "name" in item.type.model_fields:
        return [sample(item.type, {"name": f"n{number}"}) for number in range(count)]
    return [good(item)] * count


def _dict_values(item: Kind, limits: dict[str, Any]) -> Iterator[Value]:
    yield Value("empty", {})
    if (high := limits.get("max_length")) is not None:
        yield Value("most", {f"k{i}": good(item) for i in range(high)})
        yield Value("too many", {f"k{i}": good(item) for i in range(high + 1)}, "")
    null = frozenset({Sight.NULL})
    if item.type is Any:
        yield Value("anything", {"a": {"b": [1, "x", True, {"c": 1.5}]}})
    elif item.type is str:
        yield Value("one", {"a": "text", "b.c/d": "2"})
        yield from _wrong({"a": 1}, {"a": True}, {"a": []}, {"a": {}}, below=".a")
        yield Value("null within", {"a": None}, ".a", null)
    elif item.type is float:
        yield Value("one", {"a": 1, "b.c/d": 0.5})
        yield from _wrong({"a": "1"}, {"a": True}, {"a": []}, {"a": {}}, below=".a")
        yield Value("null within", {"a": None}, ".a", null)
    else:  # scalars of any type
        yield Value("every type", {"a": "text", "b": 1, "c": 1.5, "d": True})
        scalar = frozenset({Sight.SCALAR})
        yield from (each._replace(takes=scalar) for each in _wrong({"a": {}}, {"a": [1]}, below=".a"))
        yield Value("null within", {"a": None}, ".a", null)
    yield from _wrong("text", 3, True, [], [{"a": "text"}])


# Cases: one value at one place.


def _metadata_cases() -> Iterator[Case]:
    takes = frozenset({Sight.DOCUMENT})
    matches, others = PATTERNS[r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"]
    for name in (*matches, "a" * MAX_NAME_LENGTH):
        yield Case(f"metadata.name {name!r}", {**manifest(sample(RFTJobSpec)), "metadata": {"name": name}})
    for name in (*others, "a" * (MAX_NAME_LENGTH + 1)):
        refused = {**manifest(sample(RFTJobSpec)), "metadata": {"name": name}}
        # Every API server refuses the other names: it allows dots, and the CRD has the maximum length.
        sight = takes | {Sight.FIELD_RULE} if "." in name else takes
        yield Case(f"metadata.name {name!r}", refused, "metadata.name", sight)
    for what, spec in (("absent", ABSENT), ("null", None), ("a list", []), ("a text", "text")):
        yield Case(f"spec: {what}", manifest(spec), "spec", takes)


def _spec_cases() -> Iterator[Case]:
    yield Case("spec: as it is", manifest(sample(RFTJobSpec)))
    yield from _model_cases(RFTJobSpec, "spec", manifest)


def _model_cases(model: type[Model], path: str, place: Place) -> Iterator[Case]:
    """Yield the cases of every field of a pydantic model. ``path``: where its object is in the manifest."""
    unknown = place({**sample(model), "noSuchField": 1})
    yield Case(
        f"{path}: unknown field", unknown, f"{path}.noSuchField", frozenset({Sight.UNKNOWN})
    )  # fmt: skip
    for name, info in model.model_fields.items():
        field = alias(name, info)
        yield from _field_cases(name, info, f"{path}.{field}", _placer(model, field, place))


def _placer(model: type[Model], field: str, place: Place) -> Place:
    return lambda value: place(sample(model, {field: value}))


def _field_cases(name: str, info: FieldInfo, path: str, place: Place) -> Iterator[Case]:
    kind, required = kind_of(info), info.is_required()
    yield Case(f"{path}: absent", place(ABSENT), path if required else None)
    defaulted = not required and info.get_default(call_default_factory=True) is not None
    takes = frozenset({Sight.NULL} if not required and not defaulted else ())
    yield Case(f"{path}: null", place(None), None if defaulted else path, takes)
    field = path.rsplit(".", 1)[1]
    if name != field:
        yield _snake_case(name, field, path, place(good(kind)), required)
    for value in values(kind):
        refused_at = None if value.below is None else path + value.below
        yield Case(f"{path}: {value.what}", place(value.value), refused_at, value.takes)
    yield from _nested(kind, path, place)


def _snake_case(name: str, field: str, path: str, spelled: Object, required: bool) -> Case:
    """Return the case in which a field has its Python name, e.g. ``max_steps`` in place of ``maxSteps``.

    A gate that prunes unknown fields removes ``max_steps``. If the field is required, the gate then refuses
    the manifest, because the field is missing.
    """
    holder = _find(spelled, path.rsplit(".", 1)[0])
    holder[name] = holder.pop(field)
    unknown = f"{path.rsplit('.', 1)[0]}.{name}"
    if required:
        return Case(f"{path}: as {name}", spelled, path, or_at=unknown)
    return Case(f"{path}: as {name}", spelled, unknown, frozenset({Sight.UNKNOWN}))


def _find(document: Any, path: str) -> Any:
    """Return the value at a path such as ``spec.graders[0].numeric``."""
    for part in path.replace("]", "").replace("[", ".").split("."):
        document = document[int(part) if isinstance(document, list) else part]
    return document


def _nested(kind: Kind, path: str, place: Place) -> Iterator[Case]:
    if isinstance(kind.type, type) and issubclass(kind.type, Model):
        yield from _model_cases(kind.type, path, place)
    elif get_origin(kind.type) is list:
        item = _kind(get_args(kind.type)[0], [])
        if isinstance(item.type, type) and issubclass(item.type, Model):
            yield from _model_cases(item.type, f"{path}[0]", lambda value: place(_beside(value)))
        for value in values(item):
            refused_at = None if value.below is None else f"{path}[0]{value.below}"
            yield Case(f"{path}[0]: {value.what}", place([value.value]), refused_at, value.takes)


def _beside(value: Any) -> list[Any]:
    """Return a list with ``value`` in it.

    If ``value`` is a grader with a weight of about 0, a second grader with a larger weight is added.
    Otherwise no grader would contribute to the reward.
    """
    canary = isinstance(value, dict) and value.get("weight") in (0, math.nextafter(0, math.inf))
    return [value, sample(Grader, {"name": "weighted"})] if canary else [value]


# Rules across fields.

_VOLUME = {"name": "m", "mountPath": "/m"}
_SECRET_VARIABLE = {"name": "A", "secretRef": {"name": "s", "key": "k"}}
_CLAIM = {"name": "a", "resourceClaimName": "c"}
_POD_NAME = {"fieldRef": {"fieldPath": "metadata.name"}}
_FIELD_VARIABLE = {"name": "A", "valueFrom": _POD_NAME}


def _grader(**fields: Any) -> Object:
    return {"graders": [{"name": "right", **fields}]}


def _environment(**fields: Any) -> Object:
    return {"environment": {"python": {"inline": "x"}, **fields}}


def _annotated(key: str, value: str) -> Object:
    return {"template": {"annotations": {key: value}}}


BROKEN: dict[str, list[tuple[str, Object, str]]] = {
    "dataset_has_one_source": [
        ("none", {"dataset": {}}, "spec.dataset"),
        ("two", {"dataset": {"uri": "./a", "configMap": {"name": "b"}}}, "spec.dataset"),
        ("none to evaluate", {"evaluation": {"dataset": {}}}, "spec.evaluation.dataset"),
    ],
    "columns_name_one_prompt": [
        (
            "both",
            {"dataset": {"uri": "./a", "columns": {"prompt": "q", "messages": "m"}}},
            "spec.dataset.columns",
        ),
        (
            "both to evaluate",
            {"evaluation": {"dataset": {"uri": "./a", "columns": {"prompt": "q", "messages": "m"}}}},
            "spec.evaluation.dataset.columns",
        ),
    ],
    "storage_has_one_kind": [
        ("none", {"storage": {}}, "spec.storage"),
        ("two", {"storage": {"ephemeral": {}, "claimTemplate": {"size": "1Gi"}}}, "spec.storage"),
    ],
    "model_cache_has_one_claim": [
        ("none", {"model": {"name": "a/b", "cache": {}}}, "spec.model.cache"),
        (
            "two",
            {
                "model": {
                    "name": "a/b",
                    "cache": {
                        "persistentVolumeClaim": {"claimName": "c"},
                        "claimTemplate": {"size": "1Gi"},
                    },
                }
            },
            "spec.model.cache",
        ),
    ],
    "output_has_one_kind": [
        ("none", {"output": {}}, "spec.output"),
        (
            "two",
            {"output": {"hub": {"repository": "a/b"}, "s3": {"uri": "s3://bucket/a"}}},
            "spec.output",
        ),
    ],
    "best_output_needs_an_evaluation": [
        (
            "without",
            {"output": {"hub": {"repository": "a/b"}, "adapter": "best"}, "evaluation": {"fraction": 0}},
            "spec.output.adapter",
        ),
    ],
    "grader_has_one_kind": [
        ("none", _grader(), "spec.graders[0]"),
        ("two", _grader(numeric={}, math={}), "spec.graders[0]"),
    ],
    "python_grader_has_one_source": [
        ("none", _grader(python={}), "spec.graders[0].python"),
        ("two", _grader(python={"inline": "x", "configMap": {"name": "c"}}), "spec.graders[0].python"),
    ],
    "grader_names_are_unique": [
        ("twice", {"graders": [{"name": "a", "math": {}}, {"name": "a", "numeric": {}}]}, "spec.graders[1]"),
    ],
    "grader_scale_rises": [
        ("flat", _grader(numeric={}, scale={"min": 1, "max": 1}), "spec.graders[0].scale"),
        ("falls", _grader(numeric={}, scale={"min": 1, "max": 0.5}), "spec.graders[0].scale"),
    ],
    "a_grader_makes_the_reward": [
        ("no weight", _grader(numeric={}, weight=0), "spec.graders"),
        ("none", {"graders": []}, "spec.graders"),
        (
            "no weight of the environment",
            {**_grader(numeric={}, weight=0), **_environment(weight=0)},
            "spec.graders",
        ),
    ],
    "environment_has_one_source": [
        ("none", {"environment": {"python": {}}}, "spec.environment.python"),
        (
            "two",
            {"environment": {"python": {"inline": "x", "configMap": {"name": "c"}}}},
            "spec.environment.python",
        ),
    ],
    "environment_scale_rises": [
        ("flat", _environment(scale={"min": 1, "max": 1}), "spec.environment.scale"),
    ],
    "no_grader_has_the_environments_name": [
        (
            "alike",
            {**_environment(), "graders": [{"name": "environment", "math": {}}]},
            "spec.graders",
        ),
    ],
    "held_out_reward_needs_an_evaluation": [
        ("every step", {"evaluation": {"fraction": 0, "everySteps": 1}}, "spec.evaluation.everySteps"),
        ("target", {"evaluation": {"fraction": 0}, "stop": {"targetReward": 0}}, "spec.stop.targetReward"),
        ("patience", {"evaluation": {"fraction": 0.0}, "stop": {"patience": 1}}, "spec.stop.patience"),
    ],
    "canary_stop_has_a_canary": [("none", {"stop": {"canary": 0.1}}, "spec.stop.canary")],
    "marker_goes_with_marker_extraction": [
        ("no marker", _grader(numeric={"extract": "marker"}), "spec.graders[0].numeric"),
        ("no extraction", _grader(numeric={"marker": "#"}), "spec.graders[0].numeric"),
    ],
    "completion_fits_context": [
        (
            "equal",
            {"training": {"maxContextLength": 64}, "sampling": {"maxTokens": 64}},
            "spec.sampling.maxTokens",
        ),
    ],
    "context_fits_batch": [
        ("one more", {"training": {"maxContextLength": 32769}}, "spec.training.maxContextLength"),
    ],
    "completion_fits_default_context": [
        ("equal", {"training": {"batchSizeTokens": 2048}, "sampling": {}}, "spec.sampling.maxTokens"),
    ],
    "variable_has_one_value": [
        (what, {"template": {"env": [{**_SECRET_VARIABLE, "value": value}]}}, "spec.template.env[0]")
        for what, value in (("both", "b"), ("both, one empty", ""))
    ]
    + [
        (
            "value and source",
            {"template": {"env": [{**_FIELD_VARIABLE, "value": "b"}]}},
            "spec.template.env[0]",
        ),
        (
            "source and secret",
            {"template": {"env": [{**_SECRET_VARIABLE, **_FIELD_VARIABLE}]}},
            "spec.template.env[0]",
        ),
    ],
    "variable_has_one_source": [
        (
            what,
            {"template": {"env": [{"name": "A", "valueFrom": sources}]}},
            "spec.template.env[0].valueFrom",
        )
        for what, sources in (
            ("none", {}),
            ("two", {**_POD_NAME, "secretKeyRef": {"name": "s", "key": "k"}}),
        )
    ],
    "resource_claim_has_one_source": [
        ("none", {"template": {"resourceClaims": [{"name": "a"}]}}, "spec.template.resourceClaims[0]"),
        (
            "two",
            {"template": {"resourceClaims": [{**_CLAIM, "resourceClaimTemplateName": "t"}]}},
            "spec.template.resourceClaims[0]",
        ),
    ],
    "gpu_claim_is_a_claim_of_the_pod": [
        ("no claim", {"resources": {"gpuClaim": "a"}}, "spec.resources.gpuClaim"),
        (
            "another",
            {"resources": {"gpuClaim": "b"}, "template": {"resourceClaims": [_CLAIM]}},
            "spec.resources.gpuClaim",
        ),
    ],
    "annotations_widen_no_rights": [
        (f"{key}: {value}", _annotated(key, value), "spec.template.annotations")
        for key, value in (
            ("container.apparmor.security.beta.kubernetes.io/trainer", "unconfined"),
            ("container.apparmor.security.beta.kubernetes.io/grader", "localhost/own"),
            ("container.seccomp.security.alpha.kubernetes.io/grader", ""),
            ("seccomp.security.alpha.kubernetes.io/pod", "docker/default"),
            ("io.kubernetes.cri-o.Devices", "/dev/kvm"),
            ("cpu-quota.crio.io", "disable"),
            ("k8s.v1.cni.cncf.io/networks", "storage"),
            ("iam.amazonaws.com/role", "admin"),
            ("azure.workload.identity/inject-proxy-sidecar", "false"),
        )
    ],
    "extra_volume_has_one_source": [
        ("none", {"template": {"volumes": [_VOLUME]}}, "spec.template.volumes[0]"),
        (
            "two",
            {"template": {"volumes": [{**_VOLUME, "persistentVolumeClaim": "p", "configMap": "c"}]}},
            "spec.template.volumes[0]",
        ),
    ],
    "suspending_needs_storage": [
        ("ephemeral", {"suspend": True, "storage": {"ephemeral": {}}}, "spec.suspend"),
    ],
    "deadline_is_in_the_calendar": [
        (text, {"stop": {"deadline": text}}, "spec.stop.deadline")
        for text in (
            "2027-02-29T18:00:00Z",
            "2100-02-29T00:00:00Z",
            "2027-00-01T00:00:00Z",
            "2027-13-01T00:00:00Z",
            "2027-01-31T24:00:00Z",
            "2027-01-31T23:60:00Z",
            "2027-01-31T23:59:60Z",
        )
    ],
    "deterministic_runs_are_in_float32": [
        ("bfloat16", {"training": {"deterministic": True, "cpuDtype": "bfloat16"}}, "spec.training.cpuDtype"),
    ],
}
"""For each rule, specs that break only this rule.

Each item has a short description of the mistake, the fields of the spec, and the path that the refusal must
name.
"""

KEPT: dict[str, list[tuple[str, Object]]] = {
    "dataset_has_one_source": [
        ("one each", {"dataset": {"uri": "./a"}, "evaluation": {"dataset": {"uri": "./b"}}}),
    ],
    "columns_name_one_prompt": [
        ("one", {"dataset": {"uri": "./a", "columns": {"prompt": "question", "answer": "solution"}}}),
    ],
    "storage_has_one_kind": [("one", {"storage": {"ephemeral": {}}})],
    "model_cache_has_one_claim": [
        ("made", {"model": {"name": "a/b", "cache": {"claimTemplate": {"size": "1Gi"}}}}),
        ("none", {"model": {"name": "a/b"}}),
    ],
    "output_has_one_kind": [("one", {"output": {"s3": {"uri": "s3://bucket/a"}}})],
    "best_output_needs_an_evaluation": [
        ("with", {"output": {"hub": {"repository": "a/b"}, "adapter": "best"}}),
        (
            "the last one",
            {"output": {"hub": {"repository": "a/b"}, "adapter": "final"}, "evaluation": {"fraction": 0}},
        ),
    ],
    "grader_has_one_kind": [("one", _grader(math={}))],
    "python_grader_has_one_source": [("one", _grader(python={"configMap": {"name": "c"}}))],
    "grader_names_are_unique": [
        ("alike", {"graders": [{"name": "a", "math": {}}, {"name": "a1", "numeric": {}}]}),
    ],
    "grader_scale_rises": [("barely", _grader(numeric={}, scale={"min": 1, "max": math.nextafter(1, 2)}))],
    "a_grader_makes_the_reward": [
        ("least", _grader(numeric={}, weight=math.nextafter(0, 1))),
        ("environment alone", {**_environment(), "graders": []}),
        ("environment and canary", {**_environment(), **_grader(numeric={}, weight=0)}),
    ],
    "environment_has_one_source": [("one", {"environment": {"python": {"configMap": {"name": "c"}}}})],
    "environment_scale_rises": [("barely", _environment(scale={"min": 1, "max": math.nextafter(1, 2)}))],
    "no_grader_has_the_environments_name": [
        ("no environment", {"graders": [{"name": "environment", "math": {}}]}),
    ],
    "held_out_reward_needs_an_evaluation": [
        ("off", {"evaluation": {"fraction": 0}, "stop": {"maxSteps": 5}}),
        ("barely on", {"evaluation": {"fraction": math.nextafter(0, 1)}, "stop": {"targetReward": 0.9}}),
        (
            "own rows",
            {
                "evaluation": {"fraction": 0, "dataset": {"uri": "./b"}, "everySteps": 5},
                "stop": {"patience": 1},
            },
        ),
    ],
    "canary_stop_has_a_canary": [
        (
            "one",
            {
                "graders": [{"name": "a", "math": {}}, {"name": "b", "math": {}, "weight": 0}],
                "stop": {"canary": 0.1},
            },
        )
    ],
    "marker_goes_with_marker_extraction": [("both", _grader(numeric={"marker": "#", "extract": "marker"}))],
    "completion_fits_context": [
        ("one less", {"training": {"maxContextLength": 64}, "sampling": {"maxTokens": 63}}),
    ],
    "context_fits_batch": [("equal", {"training": {"maxContextLength": 32768}})],
    "completion_fits_default_context": [
        ("one more", {"training": {"batchSizeTokens": 2049}, "sampling": {}})
    ],
    "variable_has_one_value": [
        ("told", {"template": {"env": [{"name": "A", "value": "b"}]}}),
        ("secret", {"template": {"env": [_SECRET_VARIABLE]}}),
        ("empty", {"template": {"env": [{"name": "A"}]}}),
    ],
    "variable_has_one_source": [
        (next(iter(source)), {"template": {"env": [{"name": "A", "valueFrom": source}]}})
        for source in (
            _POD_NAME,
            {"secretKeyRef": {"name": "s", "key": "k", "optional": True}},
            {"configMapKeyRef": {"name": "c", "key": "k"}},
            {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}},
        )
    ],
    "resource_claim_has_one_source": [("one", {"template": {"resourceClaims": [_CLAIM]}})],
    "gpu_claim_is_a_claim_of_the_pod": [
        ("its", {"resources": {"gpuClaim": "a"}, "template": {"resourceClaims": [_CLAIM]}}),
    ],
    "annotations_widen_no_rights": [
        (f"{key}: {value}", _annotated(key, value))
        for key, value in (
            ("container.apparmor.security.beta.kubernetes.io/trainer", "runtime/default"),
            ("seccomp.security.alpha.kubernetes.io/pod", "runtime/default"),
            ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
            ("eks.amazonaws.com/skip-containers", "proxy"),
            ("crio.io", "the end of a name, without a name before it"),
        )
    ],
    "extra_volume_has_one_source": [
        ("one", {"template": {"volumes": [{**_VOLUME, "persistentVolumeClaim": "p"}]}}),
    ],
    "suspending_needs_storage": [
        ("a claim", {"suspend": True}),
        ("ephemeral, not suspended", {"suspend": False, "storage": {"ephemeral": {}}}),
    ],
    "deadline_is_in_the_calendar": [
        (text, {"stop": {"deadline": text}})
        for text in ("2028-02-29T00:00:00Z", "2000-01-01T00:00:00Z", "2999-12-31T23:59:59Z")
    ],
    "deterministic_runs_are_in_float32": [
        ("float32", {"training": {"deterministic": True, "cpuDtype": "float32"}}),
        ("absent", {"training": {"deterministic": True}}),
        ("not deterministic", {"training": {"deterministic": False, "cpuDtype": "bfloat16"}}),
        ("not said to be", {"training": {"cpuDtype": "bfloat16"}}),
    ],
}
"""For each rule, specs that almost break it, but are valid.

Each item has a short description of the spec, and the fields of the spec.
"""


def _rule_cases() -> Iterator[Case]:
    base = sample(RFTJobSpec)
    for rule, broken in BROKEN.items():
        for what, fields, path in broken:
            yield Case(f"{rule}: {what}", manifest({**base, **fields}), path, rule=rule, across_fields=True)
    for rule, kept in KEPT.items():
        for what, fields in kept:
            yield Case(f"{rule}: {what}, kept", manifest({**base, **fields}), across_fields=True)
