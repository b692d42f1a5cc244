"""The ephemeral storage that a run requests for the files that it writes to its node's disk."""

from typing import Any

from rft_api.job import RFTJobSpec
from rft_api.validation import parse
from rft_operator.objects.job import child_job
from rft_operator.objects.names import Owner
from rft_operator.objects.pod import Image
from rft_planner.ephemeral import on_node
from rft_planner.plan import plan
from rft_planner.shapes import estimated
from rft_planner.sizes import GIB, quantity
from tests.manifests import manifest

CLAIM = {"persistentVolumeClaim": {"claimName": "runs"}}
CPU = {"accelerator": {"name": "cpu"}}


def spec(**fields: Any) -> RFTJobSpec:
    return parse(manifest(**{"storage": CLAIM, **fields})).spec


def gib(gpus: int = 0, parameters: float = 1e9, **fields: Any) -> float:
    """Return the GiB of ephemeral storage that a run requests, for a model with ``parameters`` parameters."""
    found = on_node(spec(**fields), estimated(parameters), gpus)
    assert found is not None
    return quantity(found.request) / GIB


def test_a_model_of_the_hub_counts_unless_it_lies_on_a_volume() -> None:
    shape = estimated(1e9)
    base = gib(model={"name": "/models/m"})
    assert base == 0.5
    assert abs(gib() - base - 2 * shape.parameters / GIB) < 0.01
    assert gib(model={"name": "org/m", "cache": {"claimTemplate": {"size": "9Gi"}}}) == base
    assert gib(gpus=1) == gib() + 4


def test_a_run_folder_on_the_node_counts_with_its_checkpoints() -> None:
    local: dict[str, Any] = {"model": {"name": "/models/m"}, "storage": {"ephemeral": {}}}
    few, many = gib(**local), gib(**local, checkpoint={"keep": 13})
    assert few > 1.5
    assert round((many - 1.5) / (few - 1.5), 1) == 3.0  # 15 checkpoints instead of 5


def test_the_limit_is_above_the_request_unless_the_spec_sets_both() -> None:
    found = on_node(spec(), estimated(1e9), 1)
    assert found is not None
    assert quantity(found.limit) > 2 * quantity(found.request)
    assert on_node(spec(resources={"ephemeralStorage": "50Gi"}), None, 1) == ("50Gi", "50Gi")
    assert on_node(spec(), None, 1) is None


def test_every_container_requests_and_limits_what_it_writes() -> None:
    given = spec(
        model={"name": "SmolLM2-135M"},
        resources=CPU,
        graders=[{"name": "mine", "python": {"inline": "def grade(): return 1"}}],
    )
    made = plan(given, "uid")
    job = child_job(Owner("a", "b", "uid"), given, made, Image("t", "Always"), reports=False)
    for container in job["spec"]["template"]["spec"]["containers"]:
        kept = container["resources"]
        asked, limit = (kept[name]["ephemeral-storage"] for name in ("requests", "limits"))
        assert quantity(asked) < quantity(limit)
    assert made.ephemeral_storage is not None


def test_in_a_queue_only_what_the_job_asks_for_is_requested() -> None:
    """Kueue does not admit a pod that requests a resource which its ClusterQueue does not have."""
    for asked in (None, "50Gi"):
        resources = CPU | ({"ephemeralStorage": asked} if asked else {})
        given = spec(model={"name": "SmolLM2-135M"}, resources=resources)
        owner = Owner("a", "b", "uid", queue=(("kueue.x-k8s.io/queue-name", "team"),))
        job = child_job(owner, given, plan(given, "uid"), Image("t", "Always"), reports=False)
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert container["resources"]["requests"].get("ephemeral-storage") == asked


def test_a_plan_of_an_older_release_has_no_limit() -> None:
    given = spec(
        model={"name": "SmolLM2-135M"},
        resources=CPU,
        graders=[{"name": "mine", "python": {"inline": "def grade(): return 1"}}],
    )
    update = {"ephemeral_storage": None, "ephemeral_storage_limit": None}
    old = plan(given, "uid").model_copy(update=update)
    job = child_job(Owner("a", "b", "uid"), given, old, Image("t", "Always"), reports=False)
    for container in job["spec"]["template"]["spec"]["containers"]:
        assert "ephemeral-storage" not in str(container["resources"])
