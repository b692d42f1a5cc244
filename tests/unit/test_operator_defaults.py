"""A job gets the platform's defaults when it begins. If the defaults change later, its run stays the same."""

import json
from dataclasses import replace
from typing import Any

import pytest

from rft_api.defaults import NO_DEFAULTS, JobDefaults, read_defaults
from rft_api.status import RFTJobStatus
from rft_api.validation import parse
from rft_operator.decision import ChildKind, Decision
from rft_operator.objects.config import config_map, run_config
from rft_operator.objects.job import child_job
from rft_operator.objects.names import owner_of
from rft_operator.objects.pod import Image
from rft_operator.observe import Observed
from rft_operator.reconcile import reconcile
from rft_operator.settings import BadSettings, from_env
from rft_planner.accelerators import ACCELERATORS
from rft_planner.nodes import Node, Taint
from rft_planner.placement import placed
from rft_planner.plan import Unplannable
from rft_run.config import CONFIG_FILE, RunConfig, read_run_config
from tests.manifests import manifest
from tests.unit.reconcile_support import CHILD, NOW, STARTED, rftjob

Json = dict[str, Any]
PRODUCT = "nvidia.com/gpu.product"
H100, L40S = "nvidia-h100-80gb", "nvidia-l40s-48gb"


def defaults(**section: Any) -> JobDefaults:
    return read_defaults(section, ACCELERATORS)


PULL = defaults(
    template={"imagePullSecrets": [{"name": "registry"}], "labels": {"cost": "ml"}},
    accelerators={"cpu": {"template": {"image": "trainer-cpu:2"}, "resources": {"cpu": "3"}}},
)
OTHER = defaults(template={"priorityClassName": "low"})


def decided(document: Json, observed: Observed, given: JobDefaults = PULL) -> Decision:
    return reconcile(document, observed, NOW, defaults=given)


def pod_of(document: Json, decision: Decision) -> Json:
    assert decision.pod_spec is not None
    assert decision.plan is not None
    image = Image("trainer:1", "IfNotPresent")
    made = child_job(owner_of(document), decision.pod_spec, decision.plan, image, reports=False)
    template: Json = made["spec"]["template"]
    return template


def snapshot_of(document: Json, decision: Decision) -> RunConfig:
    """Return the snapshot (spec and plan of the run) that a decision writes into the job's ConfigMap.

    It is returned as it is read from the ConfigMap again.
    """
    assert decision.spec is not None
    assert decision.plan is not None
    owner = owner_of(document)
    run = run_config(owner, decision.spec, decision.plan, None, decision.defaults)
    return read_run_config(config_map(owner, run)["data"][CONFIG_FILE])


def test_a_new_job_gets_the_defaults_in_its_pod() -> None:
    document = rftjob()
    pod = pod_of(document, decided(document, Observed(ca_current=True)))
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["metadata"]["labels"]["cost"] == "ml"
    (trainer,) = pod["spec"]["containers"]
    assert (trainer["image"], trainer["resources"]["requests"]["cpu"]) == ("trainer-cpu:2", "3")


def test_the_plan_in_the_status_says_what_is_inherited_and_from_where() -> None:
    status = decided(rftjob(), Observed(ca_current=True)).status
    RFTJobStatus.model_validate(status, by_alias=True, by_name=False)
    on_cpu = "jobDefaults.accelerators.cpu"
    assert status["plan"]["effective"]["inherited"] == [
        {"path": "spec.template.image", "value": "trainer-cpu:2", "from": f"{on_cpu}.template.image"},
        {"path": "spec.resources.cpu", "value": "3", "from": f"{on_cpu}.resources.cpu"},
        {
            "path": "spec.template.imagePullSecrets[registry]",
            "value": '{"name": "registry"}',
            "from": "jobDefaults.template.imagePullSecrets[registry]",
        },
        {"path": "spec.template.labels.cost", "value": "ml", "from": "jobDefaults.template.labels.cost"},
    ]
    without = decided(rftjob(), Observed(ca_current=True), NO_DEFAULTS).status
    assert "inherited" not in without["plan"]["effective"]


def test_a_secret_among_the_defaults_is_not_shown_in_the_status() -> None:
    given = defaults(template={"env": [{"name": "PROXY_PASSWORD", "value": "hunter2hunter2"}]})
    status = decided(rftjob(), Observed(ca_current=True), given).status
    assert "PROXY_PASSWORD" in json.dumps(status)
    assert "hunter2hunter2" not in json.dumps(status)


def test_the_snapshot_has_the_spec_of_the_user_and_the_defaults_beside_it() -> None:
    document = rftjob()
    run = snapshot_of(document, decided(document, Observed(ca_current=True)))
    assert run.spec == parse(document).spec
    assert run.defaults == PULL
    assert run.effective.inherited is None, "the trainer needs no list of the inherited fields"
    assert run.pod_spec.template is not None
    assert run.pod_spec.template.labels == {"cost": "ml"}


def test_a_change_of_the_defaults_does_not_change_a_running_job() -> None:
    document = rftjob()
    first = decided(document, Observed(ca_current=True))
    running = replace(STARTED, snapshot=snapshot_of(document, first))
    later = decided({**document, "status": first.status}, running, OTHER)
    assert not later.acts
    assert later.plan == first.plan
    assert pod_of(document, later) == pod_of(document, first)
    accepted = next(c for c in later.status["conditions"] if c["type"] == "Accepted")
    assert accepted["status"] == "True"


@pytest.mark.parametrize("edited", [False, True])
def test_a_resumed_run_keeps_its_defaults_unless_its_spec_was_edited(edited: bool) -> None:
    document = rftjob()
    first = decided(document, Observed(ca_current=True))
    rest = Observed(snapshot=snapshot_of(document, first), config_exists=True, ca_current=True)
    status = {**first.status, "startTime": "2026-11-22T17:50:00Z", "phase": "Suspended"}
    resumed = rftjob(status, **({"stop": {"maxSteps": 9}} if edited else {}))
    decision = decided(resumed, rest, OTHER)
    assert decision.defaults == (OTHER if edited else PULL)
    assert (ChildKind.CONFIG in decision.ensure) is edited
    assert ChildKind.JOB in decision.ensure


def test_a_job_that_never_ran_gets_the_present_defaults() -> None:
    document = rftjob()
    first = decided(document, Observed(ca_current=True))
    refused = Observed(
        snapshot=snapshot_of(document, first), config_exists=True, ca_current=True, refused="no class"
    )
    again = decided(rftjob(first.status), refused, OTHER)
    assert again.defaults == OTHER
    assert ChildKind.CONFIG in again.ensure
    same = decided(rftjob(first.status), refused, PULL)
    assert ChildKind.CONFIG not in same.ensure


def test_a_run_of_an_earlier_release_goes_on_without_defaults() -> None:
    assert STARTED.snapshot is not None
    assert STARTED.snapshot.defaults is None
    decision = decided(rftjob(), replace(STARTED, child=CHILD))
    assert not decision.acts
    assert decision.defaults == NO_DEFAULTS
    assert "imagePullSecrets" not in pod_of(rftjob(), decision)["spec"]


# The defaults of an accelerator decide which nodes a job may use.


def node(name: str, product: str, taint: str | None = None, **labels: str) -> Node:
    allocatable = {"cpu": 64.0, "memory": 500 * 2.0**30, "nvidia.com/gpu": 8.0}
    taints = (Taint(taint),) if taint is not None else ()
    return Node(name, {PRODUCT: product, **labels}, allocatable, taints)


def test_an_accelerators_tolerations_and_selector_open_and_close_its_own_nodes() -> None:
    spec = parse(manifest(model={"name": "Qwen/Qwen2.5-7B"})).spec
    nodes = [node("a", "NVIDIA-L40S"), node("b", "NVIDIA-H100-80GB-HBM3", taint="reserved")]
    assert placed(spec, "uid", nodes).accelerator == L40S
    opened = defaults(
        accelerators={H100: {"resources": {"tolerations": [{"key": "reserved", "operator": "Exists"}]}}}
    )
    made = placed(spec, "uid", nodes, defaults=opened)
    assert made.accelerator == H100, "of the two kinds, the plan must choose the one that needs fewer GPUs"
    assert made.effective is not None
    assert [each.path for each in made.effective.inherited or []] == ["spec.resources.tolerations"]
    closed = defaults(accelerators={H100: {"resources": {"nodeSelector": {"pool": "x"}}}})
    free = [node("a", "NVIDIA-L40S"), node("b", "NVIDIA-H100-80GB-HBM3")]
    assert placed(spec, "uid", free).accelerator == H100
    assert placed(spec, "uid", free, defaults=closed).accelerator == L40S


def test_without_nodes_the_defaults_are_those_of_the_planned_accelerator() -> None:
    spec = parse(manifest(model={"name": "Qwen/Qwen2.5-7B"})).spec
    given = defaults(accelerators={H100: {"resources": {"cpu": "7"}}, L40S: {"resources": {"cpu": "5"}}})
    assert placed(spec, "uid", defaults=given).cpu == "7"
    named = parse(manifest(model={"name": "Qwen/Qwen2.5-7B"}, resources={"accelerator": {"name": L40S}})).spec
    assert placed(named, "uid", defaults=given).cpu == "5"


def test_a_price_of_an_accelerator_is_in_the_estimate_and_in_the_trainers_costs() -> None:
    document = rftjob(resources={"accelerator": {"name": H100}}, stop={"maxSteps": 3})
    given = defaults(accelerators={H100: {"resources": {"pricePerGpuHour": 2.5}}})
    decision = decided(document, Observed(ca_current=True), given)
    assert decision.plan is not None
    assert decision.plan.estimate is not None
    hours, cost = decision.plan.estimate.gpu_hours, decision.plan.estimate.cost
    assert hours is not None
    assert cost == pytest.approx(2.5 * hours, rel=0.05)
    resources = snapshot_of(document, decision).pod_spec.resources
    assert resources is not None
    assert resources.price_per_gpu_hour == 2.5


def test_a_default_that_is_too_small_says_where_it_comes_from() -> None:
    given = defaults(accelerators={"cpu": {"resources": {"memory": "1Mi"}}})
    with pytest.raises(Unplannable, match=r"by jobDefaults\.accelerators\.cpu\.resources\.memory$"):
        placed(parse(rftjob()).spec, "uid", defaults=given)


# The setting RFT_JOB_DEFAULTS.


def test_the_setting_is_json() -> None:
    given = '{"resources": {"shm": "2Gi"}}'
    settings = from_env({"RFT_TRAINER_IMAGE": "t", "RFT_JOB_DEFAULTS": given})
    assert settings.job_defaults == defaults(resources={"shm": "2Gi"})
    assert from_env({"RFT_TRAINER_IMAGE": "t"}).job_defaults == NO_DEFAULTS


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("{", "RFT_JOB_DEFAULTS is not JSON"),
        ('{"resources": {"shm": 2}}', "jobDefaults.resources.shm: 2 is not a text"),
        ('{"accelerators": {"h100": {}}}', "jobDefaults.accelerators.h100: is not in the catalogue"),
    ],
)
def test_a_wrong_setting_ends_the_operator_with_the_key(wrong: str, said: str) -> None:
    with pytest.raises(BadSettings) as error:
        from_env({"RFT_TRAINER_IMAGE": "t", "RFT_JOB_DEFAULTS": wrong})
    assert str(error.value).startswith(said)
