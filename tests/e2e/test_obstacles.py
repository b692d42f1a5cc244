"""If something prevents a job from starting, the status says so within 30 seconds.

The message names the cause, and the field to change or what to do. The message disappears after the cause is
removed. Each case has its own namespace. In each case a real part of Kubernetes refuses something: the API
server, the Job controller, the scheduler or the kubelet.
"""

import json
import time
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from tests.kubectl import Kubectl, Object
from tests.tables import table
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

TOLD_SECONDS = 30.0
CLEARED_SECONDS = 300.0
"""Time limit in seconds from the removal of a cause until its message is gone.

It is long, because the Job controller waits longer after each failed attempt to create a pod.
"""
NOWHERE = {"nodeSelector": {"rft.dev/none": "here"}}
"""Resources of a job whose pod fits on no node. They are for cases in which no pod needs to start."""
SMALL = {"gpus": 0, "cpu": "50m"}
"""Resources of a job so small that many pods fit on one node at the same time."""
NO_IMAGE = {"image": "registry.invalid/none:1"}
"""An image that cannot be pulled, so a pod with this image does not train.

The kubelet mounts the pod's volumes before it pulls the image.
"""


@dataclass(frozen=True)
class Case:
    """A job that cannot start, the objects that prevent this, and words that the status message must have."""

    name: str
    says: tuple[str, ...]
    """Words that the message must have: the cause, and the field to change or what to do."""
    spec: Object = field(default_factory=dict)
    """Fields of the job's spec that replace the usual ones."""
    objects: tuple[Object, ...] = ()
    """Objects that are applied before the job."""
    mend: tuple[Object, ...] = ()
    """Objects that are applied to remove the cause. If there are none, ``objects`` are deleted."""
    patch: Object = field(default_factory=dict)
    """A merge patch of the job that removes the cause."""


def _object(kind: str, name: str, api: str = "v1", **rest: Any) -> Object:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, **rest}


def _quota(**hard: str) -> tuple[Object, ...]:
    return (
        _object("ResourceQuota", "few", spec={"hard": {k.replace("__", "."): v for k, v in hard.items()}}),
    )


def _refused(name: str, says: tuple[str, ...], *objects: Object, **spec: Any) -> Case:
    """Return a case in which the API server refuses an object of the run.

    No node has the label that the pod asks for. So no trainer starts after the cause is removed.
    """
    return Case(name, says, {"resources": {**SMALL, **NOWHERE}, **spec}, objects)


ROWS = _object("ConfigMap", "rows", data={"train.jsonl": '{"prompt": "1+1", "answer": 2}\n'})
LATE = {"stop": {"deadline": "2026-01-01T00:00:00Z"}}

CASES = (
    _refused("quota on memory", ("few", "spec.resources.memory"), *_quota(limits__memory="1Mi")),
    _refused("quota on CPU limits", ("few", "spec.resources.cpuLimit"), *_quota(limits__cpu="1m")),
    _refused("quota on CPU requests", ("few", "spec.resources.cpu"), *_quota(requests__cpu="1m")),
    _refused("quota on pods", ("few", "pods=1", "ResourceQuota few"), *_quota(pods="0")),
    _refused(
        "LimitRange with a maximum",
        ("maximum memory usage", "Lower spec.resources.memory to 10Mi"),
        _object("LimitRange", "range", spec={"limits": [{"type": "Container", "max": {"memory": "10Mi"}}]}),
    ),
    _refused("quota on Jobs", ("Job", "few"), *_quota(**{"count/jobs__batch": "0"})),
    _refused("quota on ConfigMaps", ("ConfigMap", "few"), *_quota(**{"count/configmaps": "0"})),
    _refused(
        "quota on claims",
        ("PersistentVolumeClaim", "few"),
        *_quota(persistentvolumeclaims="0"),
        storage={"claimTemplate": {"size": "1Gi"}},
    ),
    Case(
        "missing ServiceAccount",
        ('serviceaccount "reader" not found', "spec.template.serviceAccountName"),
        {"resources": {**SMALL, **NOWHERE}, "template": {"serviceAccountName": "reader"}},
        mend=(_object("ServiceAccount", "reader"),),
    ),
    Case(
        "missing ConfigMap of the rows",
        ('configmap "others" not found', "Create the ConfigMap others", "spec.dataset.configMap.name"),
        {"dataset": {"configMap": {"name": "others"}}, "template": NO_IMAGE},
        mend=({**ROWS, "metadata": {"name": "others"}},),
    ),
    Case(
        "missing ConfigMap of a volume",
        ('configmap "extra" not found', "spec.template.volumes[0].configMap"),
        {"template": {**NO_IMAGE, "volumes": [{"name": "e", "mountPath": "/extra", "configMap": "extra"}]}},
        mend=({**ROWS, "metadata": {"name": "extra"}},),
    ),
    Case(
        "missing claim",
        ('persistentvolumeclaim "runs" not found', "spec.storage.persistentVolumeClaim.claimName"),
        {"storage": {"persistentVolumeClaim": {"claimName": "runs"}}, "template": NO_IMAGE},
        mend=(
            _object(
                "PersistentVolumeClaim",
                "runs",
                spec={"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
            ),
        ),
    ),
    Case(
        "missing StorageClass",
        ("storageclass", "fast", "not found", "spec.storage.claimTemplate.storageClassName"),
        {
            "storage": {"claimTemplate": {"size": "1Mi", "storageClassName": "fast", "retain": False}},
            "template": NO_IMAGE,
        },
        mend=(
            _object(
                "StorageClass",
                "fast",
                "storage.k8s.io/v1",
                provisioner="rft.dev/none",
                volumeBindingMode="WaitForFirstConsumer",
            ),
        ),
    ),
    Case("missing image", ("ImagePull",), {"template": NO_IMAGE}, patch={"spec": {"cancel": True}}),
    Case(
        "no node has the label",
        ("node",),
        {"resources": {**SMALL, **NOWHERE}},
        patch={"spec": {"cancel": True}},
    ),
    Case(
        "deadline before the first step",
        ("spec.stop.deadline 2026-01-01T00:00:00Z", "Move the deadline"),
        {"resources": {**SMALL, **NOWHERE}, **LATE},
        patch={"spec": {"stop": {"deadline": "2099-01-01T00:00:00Z"}}},
    ),
    Case(
        "mount path twice",
        ("mountPath", "must be unique"),
        {
            "resources": {**SMALL, **NOWHERE},
            "template": {"volumes": [{"name": "e", "mountPath": "/data/train", "configMap": "rows"}]},
        },
        patch={
            "spec": {"template": {"volumes": [{"name": "e", "mountPath": "/extra", "configMap": "rows"}]}}
        },
    ),
)


def _job(case: Case) -> Object:
    spec: Object = {
        "model": {"name": "HuggingFaceTB/SmolLM2-135M-Instruct"},
        "dataset": {"configMap": {"name": "rows"}},
        "graders": [{"name": "right", "numeric": {}}],
        "training": {"batchSizeTokens": 1024, "maxContextLength": 256},
        "sampling": {"engine": "transformers", "maxTokens": 64},
        "resources": SMALL,
        "storage": {"ephemeral": {}},
    }
    return {**_object("RFTJob", "job", "rft.dev/v1alpha1"), "spec": {**spec, **case.spec}}


def _namespace(case: Case) -> str:
    return f"rft-obstacle-{case.name.lower().replace(' ', '-')}"


@pytest.fixture(scope="module")
def places(kubectl: Kubectl) -> Iterator[dict[str, Kubectl]]:
    """kubectl in the namespace of each case, by the name of the case."""
    found = {}
    for case in CASES:
        found[case.name] = copy(kubectl)
        found[case.name].namespace = _namespace(case)
    names = sorted(place.namespace for place in found.values())
    kubectl.run("delete", "namespace", *names, "--ignore-not-found", "--wait")
    kubectl.apply(*(_object("Namespace", name) for name in names))
    yield found
    kubectl.run("delete", "namespace", *names, "--wait=false")
    kubectl.run("delete", "storageclass", "fast", "--ignore-not-found")


def _message(place: Kubectl) -> str:
    return str((place.get("rftjob", "job").get("status") or {}).get("message") or "")


def _tells(message: str, case: Case) -> bool:
    return all(part in message for part in case.says)


def _seconds_until(what: str, open_cases: dict[str, float], is_so: Any, limit: float) -> dict[str, float]:
    """Return the seconds that each case took until ``is_so`` was true for it, by the name of the case.

    ``open_cases`` has the time at which each case started, by its name. ``is_so`` is called with a name.

    Raises:
        AssertionError: ``is_so`` is still false for a case after ``limit`` seconds. The message has ``what``
            and the names of these cases.
    """
    took: dict[str, float] = {}

    def all_are() -> bool:
        for name, started in open_cases.items():
            if name not in took and is_so(name):
                took[name] = time.monotonic() - started
        return len(took) == len(open_cases)

    try:
        wait_until(what, all_are, limit, poll=0.5)
    except AssertionError as error:
        missing = sorted(open_cases.keys() - took.keys())
        raise AssertionError(f"{what}: not for {', '.join(missing)}") from error
    return took


def test_what_keeps_a_job_from_starting_is_told_and_goes_when_it_is_mended(
    places: dict[str, Kubectl], request: pytest.FixtureRequest
) -> None:
    cases = {case.name: case for case in CASES}
    started, texts = {}, {}
    for name, case in cases.items():
        place = places[name]
        place.apply(ROWS)
        if case.objects:
            place.apply(*case.objects)
    for name, case in cases.items():
        places[name].apply(_job(case))
        started[name] = time.monotonic()

    def told(name: str) -> bool:
        texts[name] = _message(places[name])
        return _tells(texts[name], cases[name])

    try:
        told_after = _seconds_until("the cause is told", started, told, 120)
    except AssertionError as error:
        untold = {name: text for name, text in texts.items() if not _tells(text, cases[name])}
        raise AssertionError(f"{error}: {untold}") from error

    mended = {}
    for name, case in cases.items():
        place = places[name]
        if case.patch:
            place.run("patch", "rftjob", "job", "--type=merge", "-p", json.dumps(case.patch))
        elif case.mend:
            place.apply(*case.mend)
        else:
            place.run("delete", "-f", "-", stdin=yaml.safe_dump_all(case.objects))
        mended[name] = time.monotonic()
    cleared_after = _seconds_until(
        "the message goes",
        mended,
        lambda name: not _tells(_message(places[name]), cases[name]),
        CLEARED_SECONDS,
    )
    printed = table(
        request.config,
        "What keeps a job from starting",
        "obstacle",
        "status message",
        "shown after",
        "gone after the cause was removed",
    )
    for name in cases:
        row = (name, texts[name], f"{told_after[name]:.0f} s", f"{cleared_after[name]:.0f} s")
        printed.rows.append(row)
    late = {name: round(seconds) for name, seconds in told_after.items() if seconds > TOLD_SECONDS}
    assert not late, f"seconds until the status named the cause, allowed {TOLD_SECONDS:.0f}: {late}"
