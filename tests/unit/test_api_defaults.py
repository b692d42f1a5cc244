"""Jobs inherit the platform's defaults for the fields that they do not set."""

import json
from typing import Any

import pytest

from rft_api.base import Model
from rft_api.defaults import (
    MERGED_BY,
    NO_DEFAULTS,
    Defaults,
    Inheriting,
    inherit,
    read_defaults,
)
from rft_api.job import RFTJobSpec
from rft_api.problems import InvalidManifest
from rft_api.resources import Resources, Template
from rft_api.validation import parse
from tests.manifests import manifest

KINDS = ("nvidia-h100-80gb",)
H100 = KINDS[0]
OWN = ("accelerator", "gpus", "gpu_claim")
Json = dict[str, Any]

# For each field that a job can inherit: a default, another value, and what a job with the other value gets.
TEMPLATE: dict[str, tuple[Any, Any, Any]] = {
    "image": ("a", "b", "b"),
    "imagePullPolicy": ("Always", "Never", "Never"),
    "imagePullSecrets": ([{"name": "a"}], [{"name": "b"}], [{"name": "a"}, {"name": "b"}]),
    "serviceAccountName": ("a", "b", "b"),
    "labels": ({"x": "a", "y": "a"}, {"x": "b", "z": "b"}, {"x": "b", "y": "a", "z": "b"}),
    "annotations": ({"x": "a", "y": "a"}, {"x": "b", "z": "b"}, {"x": "b", "y": "a", "z": "b"}),
    "env": (
        [{"name": "A", "value": "a"}, {"name": "B", "value": "a"}],
        [{"name": "B", "secretRef": {"name": "s", "key": "k"}}],
        [{"name": "A", "value": "a"}, {"name": "B", "secretRef": {"name": "s", "key": "k"}}],
    ),
    "affinity": (
        {"nodeAffinity": {"preferred": [1]}, "podAffinity": {"required": [1]}},
        {"podAffinity": {"required": [2]}},
        {"nodeAffinity": {"preferred": [1]}, "podAffinity": {"required": [2]}},
    ),
    "topologySpreadConstraints": (
        [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
            {"maxSkew": 1, "topologyKey": "host", "whenUnsatisfiable": "DoNotSchedule"},
        ],
        [{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
        [
            {"maxSkew": 1, "topologyKey": "host", "whenUnsatisfiable": "DoNotSchedule"},
            {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"},
        ],
    ),
    "priorityClassName": ("a", "b", "b"),
    "runtimeClassName": ("a", "b", "b"),
    "schedulerName": ("a", "b", "b"),
    "resourceClaims": (
        [{"name": "a", "resourceClaimName": "x"}, {"name": "b", "resourceClaimName": "x"}],
        [{"name": "b", "resourceClaimTemplateName": "y"}],
        [{"name": "a", "resourceClaimName": "x"}, {"name": "b", "resourceClaimTemplateName": "y"}],
    ),
    "volumes": (
        [
            {"name": "a", "mountPath": "/a", "configMap": "x"},
            {"name": "b", "mountPath": "/b", "configMap": "x"},
            {"name": "c", "mountPath": "/c", "configMap": "x"},
        ],
        [
            {"name": "b", "mountPath": "/other", "configMap": "y"},
            {"name": "d", "mountPath": "/c", "configMap": "y"},
        ],
        [
            {"name": "a", "mountPath": "/a", "configMap": "x"},
            {"name": "b", "mountPath": "/other", "configMap": "y"},
            {"name": "d", "mountPath": "/c", "configMap": "y"},
        ],
    ),
}
RESOURCES: dict[str, tuple[Any, Any, Any]] = {
    "cpu": ("1", "2", "2"),
    "cpuLimit": ("1", "2", "2"),
    "memory": ("1Gi", "2Gi", "2Gi"),
    "ephemeralStorage": ("1Gi", "2Gi", "2Gi"),
    "shm": ("1Gi", "2Gi", "2Gi"),
    "nodeSelector": ({"x": "a", "y": "a"}, {"x": "b"}, {"x": "b", "y": "a"}),
    "tolerations": (
        [{"key": "a", "operator": "Exists"}],
        [{"key": "b", "operator": "Exists"}],
        [{"key": "b", "operator": "Exists"}],
    ),
    "pricePerGpuHour": (1.5, 0.0, 0.0),
}
FIELDS = [
    (part, name, *values)
    for part, table in (("template", TEMPLATE), ("resources", RESOURCES))
    for name, values in table.items()
]


def merged(section: Json, kind: str | None = H100, /, **spec: Any) -> Inheriting:
    return inherit(parse(manifest(**spec)).spec, read_defaults(section, KINDS), kind)


def on_h100(section: Json) -> Json:
    return {"accelerators": {H100: section}}


def names(model: type[Model], *without: str) -> set[str]:
    return {info.alias or name for name, info in model.model_fields.items() if name not in without}


def test_the_tables_have_every_field_that_a_job_can_inherit() -> None:
    assert set(TEMPLATE) == names(Template)
    assert set(RESOURCES) == names(Resources, *OWN)
    assert names(Defaults) == {"template", "resources", "model", "storage"}


@pytest.mark.parametrize(("part", "name", "default", "other", "both"), FIELDS)
def test_a_job_inherits_what_it_leaves_out_and_keeps_what_it_says(
    part: str, name: str, default: Any, other: Any, both: Any
) -> None:
    section = on_h100({part: {name: default}})
    assert getattr(merged(section).spec, part).dump()[name] == default
    own = merged(section, **{part: {name: other}})
    assert getattr(own.spec, part).dump()[name] == both
    from_platform = [entry.path for entry in own.inherited]
    assert bool(from_platform) == (both != other)
    assert all(path.startswith(f"spec.{part}.{name}") for path in from_platform)


@pytest.mark.parametrize(
    ("part", "name", "default", "other", "both"), [each for each in FIELDS if each[1] != "image"]
)
def test_defaults_of_the_accelerator_go_before_those_of_all_jobs(
    part: str, name: str, default: Any, other: Any, both: Any
) -> None:
    section = {part: {name: default}, **on_h100({part: {name: other}})}
    assert getattr(merged(section).spec, part).dump()[name] == both
    assert getattr(merged(section, None).spec, part).dump()[name] == default


def test_a_spec_without_defaults_is_the_same_object() -> None:
    spec = parse(manifest()).spec
    assert inherit(spec, NO_DEFAULTS, H100) == Inheriting(spec, ())
    assert inherit(spec, NO_DEFAULTS, H100).spec is spec


def test_every_inherited_field_is_told_with_its_origin() -> None:
    section = {
        "template": {"env": [{"name": "A", "value": "a"}], "labels": {"x": "a", "y": "a"}},
        "resources": {"tolerations": [{"key": "a", "operator": "Exists"}]},
        **on_h100({"resources": {"nodeSelector": {"pool": "h100"}, "pricePerGpuHour": 2.5}}),
    }
    found = merged(section, template={"labels": {"x": "b"}})
    on = f"jobDefaults.accelerators.{H100}.resources"
    assert [(each.path, each.value, each.from_) for each in found.inherited] == [
        ("spec.resources.nodeSelector.pool", "h100", f"{on}.nodeSelector.pool"),
        ("spec.resources.pricePerGpuHour", "2.5", f"{on}.pricePerGpuHour"),
        ("spec.template.labels.y", "a", "jobDefaults.template.labels.y"),
        ("spec.template.env[A]", json.dumps({"name": "A", "value": "a"}), "jobDefaults.template.env[A]"),
        (
            "spec.resources.tolerations",
            '[{"key": "a", "operator": "Exists"}]',
            "jobDefaults.resources.tolerations",
        ),
    ]


CLAIM = {"cache": {"persistentVolumeClaim": {"claimName": "models"}}}
MADE = {"cache": {"claimTemplate": {"size": "9Gi", "storageClassName": "fast"}}}


@pytest.mark.parametrize(
    ("default", "own", "result"),
    [
        (CLAIM, None, CLAIM["cache"]),
        (CLAIM, {"claimTemplate": {"size": "1Gi"}}, {"claimTemplate": {"size": "1Gi", "retain": True}}),
        (
            MADE,
            {"claimTemplate": {"size": "1Gi"}},
            {"claimTemplate": {"size": "1Gi", "retain": True, "storageClassName": "fast"}},
        ),
        (MADE, CLAIM["cache"], CLAIM["cache"]),
    ],
)
def test_a_cache_has_one_claim_after_the_merge(default: Json, own: Json | None, result: Json) -> None:
    model = {"name": "Qwen/Qwen2.5-14B", **({"cache": own} if own is not None else {})}
    cache = merged({"model": default}, model=model).spec.model.cache
    assert cache is not None
    assert cache.dump() == result


def test_a_model_in_a_folder_gets_no_cache() -> None:
    assert merged({"model": CLAIM}, model={"name": "/models/a"}).spec.model.cache is None


@pytest.mark.parametrize(
    ("storage", "result"),
    [
        ({"claimTemplate": {"size": "1Gi"}}, "fast"),
        ({"claimTemplate": {"size": "1Gi", "storageClassName": "own"}}, "own"),
        ({"persistentVolumeClaim": {"claimName": "runs"}}, None),
        ({"ephemeral": {}}, None),
    ],
)
def test_the_storage_class_is_for_claims_that_the_operator_makes(storage: Json, result: str | None) -> None:
    found = merged({"storage": {"claimTemplate": {"storageClassName": "fast"}}}, storage=storage).spec
    assert found.storage.dump().keys() == storage.keys()
    template = found.storage.claim_template
    assert (template.storage_class_name if template is not None else None) == result


def test_a_merged_list_may_be_longer_than_that_of_a_manifest() -> None:
    secrets = [{"name": f"a{i}"} for i in range(16)]
    section = {"template": {"imagePullSecrets": [{"name": f"b{i}"} for i in range(16)]}}
    template = merged(section, template={"imagePullSecrets": secrets}).spec.template
    assert template is not None
    assert len(template.image_pull_secrets or []) == 32


def test_the_merged_lists_are_fields_of_the_spec() -> None:
    for path, keys in MERGED_BY.items():
        field = next(info for info in Template.model_fields.values() if path.endswith(f".{info.alias}"))
        item = next(model for model in _models(field.annotation))
        assert set(keys) <= set(item.model_fields)


def _models(annotation: Any) -> list[type[Model]]:
    inner = getattr(annotation, "__args__", ())
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return [annotation]
    return [model for each in inner for model in _models(each)]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([], "jobDefaults: [] is not an object"),
        ({"tolerations": []}, "jobDefaults.tolerations: no such field"),
        ({"resources": {"cpu": 4}}, "jobDefaults.resources.cpu: 4 is not a text"),
        ({"resources": {"gpus": 2}}, "jobDefaults.resources.gpus: can only be set by the job"),
        ({"template": {"image": "a"}}, "jobDefaults.template.image: is allowed below accelerators.NAME only"),
        (
            {"template": {"env": [{"name": "A", "value": "", "secretRef": {"name": "a", "key": "b"}}]}},
            "jobDefaults.template.env[0]: has value and secretRef",
        ),
        ({"model": {"cache": {}}}, "jobDefaults.model.cache: needs exactly one of"),
        (
            {"accelerators": {"h100": {}}},
            f"jobDefaults.accelerators.h100: is not in the catalogue; name one of: cpu, {H100}",
        ),
        (
            on_h100({"resources": {"shm": "much"}}),
            f"jobDefaults.accelerators.{H100}.resources.shm: 'much' is not a quantity",
        ),
        (
            on_h100({"template": {"annotations": {"cdi.k8s.io/a": "b"}}}),
            f"jobDefaults.accelerators.{H100}.template.annotations.cdi.k8s.io/a: 'b' is refused",
        ),
    ],
)  # fmt: skip
def test_a_wrong_default_is_an_error_with_its_key(wrong: Any, said: str) -> None:
    with pytest.raises(InvalidManifest) as error:
        read_defaults(wrong, KINDS)
    assert str(error.value).startswith(said)


def test_cpu_is_the_section_of_jobs_without_gpus() -> None:
    section = {"accelerators": {"cpu": {"resources": {"cpu": "3"}}}}
    on_cpu, on_gpu = merged(section, "cpu").spec, merged(section).spec
    assert isinstance(on_cpu, RFTJobSpec)
    assert (on_cpu.resources and on_cpu.resources.cpu, on_gpu.resources) == ("3", None)
