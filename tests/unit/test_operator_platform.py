"""How the pod of a run depends on the version of the API server, and on the platform, such as OpenShift."""

from typing import Any

import pytest

from rft_api.validation import parse
from rft_operator.cluster import ClusterError, Unavailable
from rft_operator.objects.job import child_job
from rft_operator.objects.names import Owner
from rft_operator.objects.platform import Platform, is_at_least
from rft_operator.objects.pod import Image
from rft_operator.observe import pod
from rft_operator.server import CACHED_SECONDS, OPENSHIFT, ServerFeatures, Servers
from rft_planner.plan import plan
from tests.manifests import manifest

OWNER = Owner("sums", "team", "uid")
GRADERS = [{"name": "mine", "python": {"inline": "def grade(): return 1"}}]
ZONE: dict[str, Any] = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}


def made(platform: Platform, **spec: Any) -> dict[str, Any]:
    """Return the spec of a run's pod for this platform."""
    given = {"resources": {"accelerator": {"name": "cpu"}}, "graders": GRADERS, **spec}
    parsed = parse(manifest(model={"name": "SmolLM2-135M"}, **given)).spec
    image = Image("trainer:1", "Always")
    job = child_job(OWNER, parsed, plan(parsed, "uid"), image, reports=True, platform=platform)
    found: dict[str, Any] = job["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize(
    ("version", "new"),
    [
        ({"major": "1", "minor": "29"}, True),
        ({"major": "1", "minor": "29+"}, True),
        ({"major": "2", "minor": "0"}, True),
        ({"major": "1", "minor": "28"}, False),
        ({"major": "1", "minor": "x"}, False),
        ({}, False),
    ],
)
def test_a_version_is_compared_by_its_numbers(version: dict[str, str], new: bool) -> None:
    assert is_at_least(version, (1, 29)) is new


def test_the_grader_is_a_native_sidecar_where_the_server_has_them() -> None:
    old, new = made(Platform()), made(Platform(sidecars=True))
    assert [each["name"] for each in old["containers"]] == ["trainer", "grader"]
    assert "initContainers" not in old
    assert [each["name"] for each in new["containers"]] == ["trainer"]
    (grader,) = new["initContainers"]
    assert grader == {**old["containers"][1], "restartPolicy": "Always"}
    alone = made(Platform(sidecars=True), graders=[{"name": "right", "numeric": {}}])
    assert "initContainers" not in alone


def test_a_server_whose_jobs_wait_for_the_last_pod_needs_no_anti_affinity() -> None:
    assert "podAntiAffinity" in made(Platform())["affinity"]
    assert "affinity" not in made(Platform(replaces_pods=True))
    assert made(Platform(replaces_pods=True), template={"affinity": ZONE})["affinity"] == ZONE


def test_where_the_cluster_assigns_users_the_pod_names_none() -> None:
    found = made(Platform(assigns_users=True))
    assert found["securityContext"] == {
        "runAsNonRoot": True,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for container in found["containers"]:
        security = container["securityContext"]
        assert not {"runAsUser", "runAsGroup"} & set(security)
        assert security["runAsNonRoot"] is True
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
    environment = {each["name"]: each.get("value") for each in found["containers"][0]["env"]}
    assert environment["USER"] == "trainer"
    assert environment["HOME"] == "/scratch"


def test_the_users_of_each_container_differ_elsewhere() -> None:
    found = made(Platform())
    assert found["securityContext"]["fsGroup"] == 10000
    assert [each["securityContext"]["runAsUser"] for each in found["containers"]] == [10001, 10002]


def test_requests_of_a_native_sidecar_count_and_its_end_says_nothing_about_the_run() -> None:
    def container(cpu: str) -> dict[str, Any]:
        return {"resources": {"requests": {"cpu": cpu}}}

    ended = {"terminated": {"exitCode": 137, "finishedAt": "2026-11-22T18:00:00Z"}}
    found = pod(
        {
            "metadata": {"name": "p", "uid": "u"},
            "spec": {
                "containers": [container("2")],
                "initContainers": [{**container("100m"), "restartPolicy": "Always"}, container("4")],
            },
            "status": {
                "phase": "Running",
                "initContainerStatuses": [{"name": "grader", "state": ended}],
                "containerStatuses": [
                    {"name": "trainer", "state": {"terminated": {**ended["terminated"], "exitCode": 0}}},
                    {"name": "istio-proxy", "state": {"running": {}}},
                ],
            },
        }
    )
    assert found.requests == {"cpu": 2.1}
    assert found.grader is None
    assert found.beside == ("istio-proxy",)
    assert found.trainer is not None
    assert found.trainer.at == "2026-11-22T18:00:00Z"


def test_a_sidecar_that_waits_is_told() -> None:
    waits = {"waiting": {"reason": "CreateContainerConfigError", "message": "no such key"}}
    status = {"initContainerStatuses": [{"name": "grader", "state": waits}]}
    found = pod({"metadata": {"name": "p", "uid": "u"}, "status": status})
    assert found.waiting is not None
    assert found.waiting.reason == "CreateContainerConfigError"


def test_the_server_is_asked_again_after_a_while_and_its_last_answer_is_kept() -> None:
    now, fails = 0.0, False
    groups: list[str] = []

    def version() -> dict[str, str]:
        if fails:
            raise ClusterError(503, "unavailable")
        return {"major": "1", "minor": "36" if now else "28"}

    def has_group(group: str) -> bool:
        groups.append(group)
        return True

    servers = Servers(version, has_group, "auto", lambda: now)
    assert servers.get() == servers.get() == ServerFeatures(assigns_users=True)
    assert groups == [OPENSHIFT]
    now = CACHED_SECONDS + 1
    newest = ServerFeatures(sidecars=True, replaces_pods=True, assigns_users=True)
    assert servers.get() == newest
    now, fails = 3 * CACHED_SECONDS, True
    assert servers.get() == newest


def test_without_any_answer_of_the_server_no_job_is_made_by_a_guess() -> None:
    def version() -> dict[str, str]:
        raise Unavailable(503, "unavailable")

    with pytest.raises(Unavailable):
        Servers(version, lambda _group: True, "auto").get()


def test_nodes_of_older_releases_get_no_native_sidecar() -> None:
    servers = Servers(lambda: {"major": "1", "minor": "30"}, lambda _group: False, "auto")
    assert servers.get() == ServerFeatures(replaces_pods=True)


@pytest.mark.parametrize("setting", ["true", "false"])
def test_a_setting_replaces_the_question_whether_users_are_assigned(setting: Any) -> None:
    def has_group(_group: str) -> bool:
        raise AssertionError("the API server must not be asked: the setting decides")

    def refused() -> dict[str, str]:
        raise ClusterError(403, "forbidden")

    for version in (lambda: {"major": "1", "minor": "36"}, refused):
        servers = Servers(version, has_group, setting)
        assert servers.get().assigns_users is (setting == "true")
