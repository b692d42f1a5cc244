"""CPU limits of the pod's containers: the spec's, or those that a quota of the namespace requires."""

from collections.abc import Iterable
from typing import Any

import pytest

from rft_api.validation import parse
from rft_operator.cluster import ClusterError
from rft_operator.cpu_limits import CACHED_SECONDS, CpuLimits, asks_for_cpu_limit
from rft_operator.objects.job import child_job
from rft_operator.objects.names import Owner
from rft_operator.objects.platform import Platform
from rft_operator.objects.pod import Image
from rft_planner.plan import Unplannable, plan
from tests.manifests import manifest

OWNER = Owner("sums", "team", "uid")
GRADERS = [{"name": "mine", "python": {"inline": "def grade(): return 1"}}]


def limits(*, asked_for: bool = False, **resources: Any) -> dict[str, tuple[Any, Any]]:
    """Return the CPU request and the CPU limit (or None) of each container, by the container's name.

    ``asked_for`` says whether a quota of the namespace requires CPU limits.
    """
    given = {"accelerator": {"name": "cpu"}, **resources}
    spec = parse(manifest(model={"name": "SmolLM2-135M"}, graders=GRADERS, resources=given)).spec
    image = Image("trainer:1", "Always")
    job = child_job(
        OWNER, spec, plan(spec, "uid"), image, reports=False, platform=Platform(cpu_limit=asked_for)
    )
    return {
        each["name"]: (each["resources"]["requests"]["cpu"], each["resources"]["limits"].get("cpu"))
        for each in job["spec"]["template"]["spec"]["containers"]
    }


def test_without_need_no_container_has_a_cpu_limit() -> None:
    assert limits() == {"trainer": ("1500m", None), "grader": ("100m", None)}


def test_in_a_namespace_that_asks_for_limits_the_cpu_request_is_the_limit() -> None:
    assert limits(asked_for=True) == {"trainer": ("1500m", "1500m"), "grader": ("100m", "1")}


def test_a_cpu_limit_of_the_spec_is_used_and_bounds_the_planned_request() -> None:
    for asked_for in (False, True):
        assert limits(asked_for=asked_for, cpuLimit="4")["trainer"] == ("1500m", "4")
    assert limits(cpuLimit="1") == {"trainer": ("1", "1"), "grader": ("100m", "1")}
    assert limits(cpu="2", cpuLimit="2")["trainer"] == ("2", "2")


def test_a_cpu_request_above_the_limit_is_refused() -> None:
    with pytest.raises(Unplannable, match=r"cpu: 4 is above spec\.resources\.cpuLimit 2000m"):
        limits(cpu="4", cpuLimit="2000m")


def quota(**hard: str) -> dict[str, Any]:
    return {"spec": {"hard": {name.replace("_", "."): amount for name, amount in hard.items()}}}


def limit_range(**item: Any) -> dict[str, Any]:
    return {"spec": {"limits": [{"type": "Container", **item}]}}


@pytest.mark.parametrize(
    ("quotas", "ranges", "asks"),
    [
        ([], [], False),
        ([quota(limits_cpu="8")], [], True),
        ([quota(requests_cpu="8", limits_memory="1Gi"), {}], [{}], False),
        ([], [limit_range(maxLimitRequestRatio={"cpu": "2"})], True),
        ([], [limit_range(type="Pod", max={"cpu": "8"})], True),
        ([], [limit_range(max={"cpu": "8"})], False),
        ([], [limit_range(maxLimitRequestRatio={"cpu": "2"}), limit_range(default={"cpu": "4"})], False),
        ([], [limit_range(type="Pod", max={"memory": "8Gi"})], False),
    ],
)
def test_a_namespace_asks_for_cpu_limits(quotas: list[Any], ranges: list[Any], asks: bool) -> None:
    assert asks_for_cpu_limit(quotas, ranges) is asks


def test_the_answer_about_a_namespace_is_read_again_after_a_while() -> None:
    read: list[str] = []
    now = 0.0

    def quotas(namespace: str) -> Iterable[dict[str, Any]]:
        read.append(namespace)
        return [quota(limits_cpu="8")] if namespace == "tight" else []

    known = CpuLimits(quotas, lambda _namespace: [], lambda: now)
    assert [known.asked_for(name) for name in ("tight", "free", "tight")] == [True, False, True]
    assert read == ["tight", "free"]
    now = CACHED_SECONDS
    assert known.asked_for("tight")
    assert read == ["tight", "free", "tight"]


def test_without_the_right_to_read_quotas_no_limit_is_set_and_the_next_job_asks_again() -> None:
    refusals = [True, False]

    def quotas(_namespace: str) -> Iterable[dict[str, Any]]:
        if refusals.pop(0):
            raise ClusterError(403, "resourcequotas is forbidden")
        return [quota(limits_cpu="8")]

    known = CpuLimits(quotas, lambda _namespace: [])
    assert not known.asked_for("team")
    assert known.asked_for("team")
