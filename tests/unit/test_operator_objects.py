"""The child objects of an RFTJob: security contexts, volumes and resource requests of the trainer's pod."""

import csv
import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from rft_api.resources import OPERATOR_VARIABLES
from rft_api.sources import ClaimTemplate
from rft_api.validation import parse
from rft_operator.objects.config import ca_config_map, claim, config_map, run_config
from rft_operator.objects.job import child_job
from rft_operator.objects.names import Owner, owner_of, uid8
from rft_operator.objects.pod import Image
from rft_planner.plan import plan
from rft_run.config import CONFIG_FILE, GRADER_CONFIG_FILE, GraderConfig, RunConfig
from rft_run.exit_codes import PERMANENT, UNCOUNTED
from rft_run.report import TOKEN_AUDIENCE

OWNER = Owner("sums", "team", "5b0d2ac7-2f3b-4c3a-9f0f-6a4b7c1f2d3e")
URL = "https://10.96.0.50:8443"
SPEC: dict[str, Any] = {
    "model": {"name": "/models/SmolLM2-135M", "secretRef": {"name": "hub", "key": "token"}},
    "dataset": {"configMap": {"name": "rows", "key": "sums.jsonl"}},
    "graders": [
        {"name": "right", "numeric": {}},
        {"name": "mine", "python": {"configMap": {"name": "code", "key": "grader.py"}}},
        {"name": "judge", "http": {"url": "https://judge", "secretRef": {"name": "judge", "key": "t"}}},
    ],
    "storage": {"persistentVolumeClaim": {"claimName": "runs"}},
    "resources": {"accelerator": {"name": "cpu"}},
    "template": {
        "labels": {"team": "a", "rft.dev/job-uid": "forged"},
        "env": [
            {"name": "MINE", "value": "1"},
            {"name": "RFT_POD_UID", "value": "forged"},
            {"name": "AWS_SECRET_ACCESS_KEY", "secretRef": {"name": "bucket", "key": "secret"}},
        ],
    },
}


def job(*, counts: bool = False, **changes: Any) -> dict[str, Any]:
    spec = parse(
        {
            "apiVersion": "rft.dev/v1alpha1",
            "kind": "RFTJob",
            "metadata": {"name": "sums"},
            "spec": {**SPEC, **changes},
        }
    ).spec
    image = Image("trainer:1", "IfNotPresent")
    return child_job(OWNER, spec, plan(spec, OWNER.uid), image, reports=True, counts=counts)


def run(**changes: Any) -> RunConfig:
    spec = parse(
        {
            "apiVersion": "rft.dev/v1alpha1",
            "kind": "RFTJob",
            "metadata": {"name": "sums"},
            "spec": {**SPEC, **changes},
        }
    ).spec
    return run_config(OWNER, spec, plan(spec, OWNER.uid), URL)


def containers(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {c["name"]: c for c in manifest["spec"]["template"]["spec"]["containers"]}


def mounts(container: dict[str, Any]) -> dict[str, str]:
    return {m["mountPath"]: m["name"] for m in container["volumeMounts"]}


def volume(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    found = [v for v in manifest["spec"]["template"]["spec"]["volumes"] if v["name"] == name]
    return dict(found[0])


def test_children_are_named_by_the_uid_and_owned_by_the_rftjob() -> None:
    manifest = job()
    assert manifest["metadata"]["name"] == f"sums-{uid8(OWNER.uid)}"
    assert len(uid8(OWNER.uid)) == 8
    (reference,) = manifest["metadata"]["ownerReferences"]
    assert reference["uid"] == OWNER.uid
    assert reference["controller"] is True
    assert reference["blockOwnerDeletion"] is True


def test_the_childs_name_is_determined_by_the_uid() -> None:
    assert job() == job()
    assert Owner("sums", "team", "other").child != OWNER.child


def test_every_container_has_a_restricted_security_context() -> None:
    manifest = job()
    for container in containers(manifest).values():
        security = container["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["terminationMessagePolicy"] == "File"
    pod = manifest["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["restartPolicy"] == "Never"
    assert pod["shareProcessNamespace"] is False
    assert not any(key.startswith("host") for key in pod)


def test_users_code_has_another_uid_and_no_access_to_token_rows_and_checkpoints() -> None:
    manifest = job()
    trainer, grader = containers(manifest)["trainer"], containers(manifest)["grader"]
    assert trainer["securityContext"]["runAsUser"] != grader["securityContext"]["runAsUser"]
    shared = set(mounts(trainer).values()) & set(mounts(grader).values())
    assert shared == {"grader-socket", "code-1"}
    for container in (trainer, grader):  # the trainer reads the code to notice a change, and never runs it
        assert [m["readOnly"] for m in container["volumeMounts"] if m["name"] == "code-1"] == [True]
    assert set(mounts(grader)) == {"/run/rft-grader", "/tmp", "/etc/rft/grader", "/etc/rft/graders/mine"}
    assert not any("valueFrom" in variable for variable in grader["env"])
    assert grader["resources"]["limits"]["memory"]


def annotations(**changes: Any) -> dict[str, str]:
    found: dict[str, str] = job(**changes)["spec"]["template"]["metadata"].get("annotations", {})
    return found


EKS, AZURE, ALIBABA = (
    f"{domain}/skip-containers"
    for domain in ("eks.amazonaws.com", "azure.workload.identity", "pod-identity.alibabacloud.com")
)


def test_no_cloud_webhook_gives_users_code_the_identity_of_the_service_account() -> None:
    template = {"serviceAccountName": "reader", "labels": {"azure.workload.identity/use": "true"}}
    assert annotations(template=template) == {EKS: "grader", AZURE: "grader", ALIBABA: "grader"}


def skipped_by_eks(text: str) -> list[str]:
    """Return the names of the containers that get no identity on EKS, from the annotation's value ``text``.

    EKS reads the value as one line of strict CSV. Spaces belong to the names.
    """
    (first, *_) = csv.reader([text], strict=True)
    return first


def skipped_by_azure(text: str) -> list[str]:
    return [name.strip() for name in text.split(";")]


@pytest.mark.parametrize(
    "theirs",
    [
        "",
        "proxy",
        "proxy,log",
        "proxy;log",
        " proxy , log ",
        ",,proxy",
        'proxy,"log',
        '"proxy","log"',
        "a\nproxy",
    ],
)
def test_the_users_own_list_of_containers_never_lets_users_code_in(theirs: str) -> None:
    made = annotations(template={"annotations": {EKS: theirs, AZURE: theirs, "owner": "me"}})
    assert made["owner"] == "me"
    own = [name for name in ("proxy", "log") if name in theirs]
    for skipped in (skipped_by_eks(made[EKS]), skipped_by_azure(made[AZURE])):
        assert skipped[0] == "grader"
        assert [name for name in skipped if name in ("proxy", "log")] == own


def test_the_grader_stands_once_in_a_list_that_names_it() -> None:
    assert annotations(template={"annotations": {EKS: "proxy,grader"}})[EKS] == "grader,proxy"


def test_a_pod_without_users_code_keeps_the_users_annotations_as_they_are() -> None:
    given = {EKS: "proxy", "owner": "me"}
    graders = [{"name": "right", "numeric": {}}]
    assert annotations(graders=graders, template={"annotations": given}) == given
    assert annotations(graders=graders) == {}


def test_the_documented_network_policy_selects_the_pods_of_runs_and_excludes_metadata_services() -> None:
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
    (policy,) = [
        found
        for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
        if (found := yaml.safe_load(block)).get("kind") == "NetworkPolicy"
    ]
    labels = job()["spec"]["template"]["metadata"]["labels"]
    for term in policy["spec"]["podSelector"]["matchExpressions"]:
        assert term["operator"] == "Exists"
        assert term["key"] in labels
    peers = [peer for rule in policy["spec"]["egress"] for peer in rule["to"]]
    assert {"namespaceSelector": {}} in peers, "some network plugins match no pod by its address"
    blocks = [peer["ipBlock"] for peer in peers if "ipBlock" in peer]
    for address in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16"):
        assert not any(allows(block, ip_address(address)) for block in blocks)
    for address in ("169.254.170.23", "fd00:ec2::23", "10.96.0.10", "8.8.8.8"):
        assert any(allows(block, ip_address(address)) for block in blocks)


def allows(block: dict[str, Any], address: IPv4Address | IPv6Address) -> bool:
    inside = address in ip_network(block["cidr"])
    return inside and not any(address in ip_network(part) for part in block.get("except", []))


def test_no_container_of_the_pod_is_given_a_token_for_the_api_server() -> None:
    manifest = job(template={"serviceAccountName": "reader"})
    pod = manifest["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "reader"
    assert pod["automountServiceAccountToken"] is False
    sources = [source for v in pod["volumes"] for source in v.get("projected", {}).get("sources", [])]
    assert [s["serviceAccountToken"]["audience"] for s in sources if "serviceAccountToken" in s] == [
        TOKEN_AUDIENCE
    ]
    assert "token" not in mounts(containers(manifest)["grader"]).values()


def test_users_code_gets_every_key_of_its_config_map() -> None:
    (name,) = (name for path, name in mounts(containers(job())["grader"]).items() if path.endswith("/mine"))
    assert set(volume(job(), name)["configMap"]) == {"name"}


def test_a_job_without_users_code_has_one_container() -> None:
    manifest = job(graders=[{"name": "right", "numeric": {}}])
    assert set(containers(manifest)) == {"trainer"}
    assert (
        GRADER_CONFIG_FILE not in config_map(OWNER, run(graders=[{"name": "right", "numeric": {}}]))["data"]
    )


def test_the_token_has_the_ingests_audience_and_is_readable_by_the_group_only() -> None:
    projected = volume(job(), "token")["projected"]
    (source,) = projected["sources"]
    assert source["serviceAccountToken"]["audience"] == TOKEN_AUDIENCE
    assert source["serviceAccountToken"]["expirationSeconds"] == 3600
    assert projected["defaultMode"] == 0o440


def test_the_ca_is_mounted_as_a_directory_so_that_rotations_arrive() -> None:
    (mount,) = [m for m in containers(job())["trainer"]["volumeMounts"] if m["name"] == "ca"]
    assert "subPath" not in mount
    assert "immutable" not in ca_config_map(OWNER, "PEM")


def test_secrets_are_referenced_and_never_copied() -> None:
    manifest = job()
    environment = {v["name"]: v for v in containers(manifest)["trainer"]["env"]}
    assert environment["HF_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "hub", "key": "token"}
    assert "RFT_PUSH_TOKEN" not in environment
    from_bucket = environment["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"]
    assert from_bucket == {"name": "bucket", "key": "secret"}
    assert volume(manifest, "secret-2")["secret"]["secretName"] == "judge"
    assert mounts(containers(manifest)["trainer"])["/etc/rft/secrets/judge"] == "secret-2"


def test_the_token_for_the_result_is_the_trainers_and_no_other_containers() -> None:
    output = {"hub": {"repository": "team/sums", "secretRef": {"name": "writer", "key": "token"}}}
    named = containers(job(output=output))
    (variable,) = [v for v in named["trainer"]["env"] if v["name"] == "RFT_PUSH_TOKEN"]
    assert variable["valueFrom"]["secretKeyRef"] == {"name": "writer", "key": "token"}
    others = [v["name"] for name, each in named.items() if name != "trainer" for v in each.get("env", [])]
    assert "RFT_PUSH_TOKEN" not in others


def test_users_labels_and_variables_cannot_replace_the_operators() -> None:
    manifest = job()
    labels = manifest["spec"]["template"]["metadata"]["labels"]
    assert labels["rft.dev/job-uid"] == OWNER.uid
    assert labels["team"] == "a"
    named = [v for v in containers(manifest)["trainer"]["env"] if v["name"] == "RFT_POD_UID"]
    assert named == [{"name": "RFT_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}]


def test_the_failure_policy_fails_the_job_on_permanent_codes_and_ignores_preemption() -> None:
    manifest = job()
    rules = manifest["spec"]["podFailurePolicy"]["rules"]
    by_action = {rule["action"]: rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule}
    assert by_action == {"FailJob": sorted(PERMANENT), "Ignore": sorted(UNCOUNTED)}
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert manifest["spec"]["podReplacementPolicy"] == "Failed"
    assert manifest["spec"]["backoffLimit"] == 3


def test_the_child_job_has_the_deadline_of_the_spec_and_none_by_default() -> None:
    assert job(activeDeadlineSeconds=600)["spec"]["activeDeadlineSeconds"] == 600
    assert "activeDeadlineSeconds" not in job()["spec"]


def test_gpus_are_requested_as_limits() -> None:
    limits = containers(job(resources={"gpus": 2}))["trainer"]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "2"
    assert "nvidia.com/gpu" not in containers(job())["trainer"]["resources"]["limits"]


def test_the_snapshot_is_immutable_and_can_be_parsed() -> None:
    made = config_map(OWNER, run())
    assert made["immutable"] is True
    read = RunConfig.model_validate_json(made["data"][CONFIG_FILE])
    assert read == run()
    assert read.run_dir == f"/runs/team/{OWNER.child}"
    assert read.dataset_path == "/data/train/sums.jsonl"
    assert read.grader_code == {"mine": "/etc/rft/graders/mine/grader.py"}
    assert read.report is not None
    assert read.report.url == f"{URL}/v1/report"


def test_the_grader_containers_configuration_has_only_users_code() -> None:
    text = config_map(OWNER, run())["data"][GRADER_CONFIG_FILE]
    graders = GraderConfig.model_validate_json(text)
    assert [g.name for g in graders.graders] == ["mine"]
    assert "judge" not in text


@pytest.mark.parametrize(("retain", "owned"), [(True, False), (False, True)])
def test_only_a_claim_that_is_not_retained_has_an_owner_reference(retain: bool, owned: bool) -> None:
    spec = run(storage={"claimTemplate": {"size": "5Gi", "retain": retain}}).spec
    assert spec.storage.claim_template is not None
    made = claim(OWNER, spec.storage.claim_template)
    assert ("ownerReferences" in made["metadata"]) is owned
    assert made["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_a_dataset_on_a_claim_is_mounted_read_only() -> None:
    manifest = job(dataset={"persistentVolumeClaim": {"claimName": "data", "path": "a/b.jsonl"}})
    (mount,) = [m for m in containers(manifest)["trainer"]["volumeMounts"] if m["name"] == "dataset"]
    assert mount == {"name": "dataset", "mountPath": "/data/train", "readOnly": True}


def test_the_pod_mounts_no_path_of_its_node() -> None:
    given = [
        {"name": "a", "mountPath": "/a", "persistentVolumeClaim": "models"},
        {"name": "b", "mountPath": "/b", "configMap": "own"},
    ]
    found = job(template={"volumes": given})["spec"]["template"]["spec"]["volumes"]
    kinds = {kind for each in found for kind in each if kind != "name"}
    assert kinds == {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}


def test_without_ingest_no_token_is_mounted() -> None:
    spec = run().spec
    made = child_job(OWNER, spec, plan(spec, OWNER.uid), Image("t", "Never"), reports=False)
    names = {v["name"] for v in made["spec"]["template"]["spec"]["volumes"]}
    assert not names & {"token", "ca"}


def test_the_child_gets_the_rftjobs_queue_label_and_is_not_created_suspended() -> None:
    document = {
        "metadata": {
            "name": "sums",
            "namespace": "team",
            "uid": OWNER.uid,
            "labels": {
                "kueue.x-k8s.io/queue-name": "gpus",
                "kueue.x-k8s.io/priority-class": "low",
                "own": "x",
            },
        }
    }
    spec = parse(
        {"apiVersion": "rft.dev/v1alpha1", "kind": "RFTJob", "metadata": {"name": "s"}, "spec": SPEC}
    ).spec
    image = Image("trainer:1", "IfNotPresent")
    made = child_job(owner_of(document), spec, plan(spec, OWNER.uid), image, reports=True)
    labels = made["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "gpus"
    assert labels["kueue.x-k8s.io/priority-class"] == "low"
    assert "own" not in labels
    assert labels["rft.dev/job-uid"] == OWNER.uid
    assert "suspend" not in made["spec"]
    assert "kueue.x-k8s.io/queue-name" not in job()["metadata"]["labels"]


REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
APART = {
    "labelSelector": {"matchLabels": {"rft.dev/job-uid": OWNER.uid}},
    "topologyKey": "kubernetes.io/os",
}


def affinity(template: dict[str, Any]) -> Any:
    return job(template=template)["spec"]["template"]["spec"]["affinity"]


def test_two_pods_of_a_job_are_never_scheduled_and_users_affinity_is_kept() -> None:
    assert affinity({}) == {"podAntiAffinity": {REQUIRED: [APART]}}
    zone = {"labelSelector": {"matchLabels": {"app": "noisy"}}, "topologyKey": "topology.kubernetes.io/zone"}
    theirs = {"nodeAffinity": {"a": "b"}, "podAntiAffinity": {REQUIRED: [zone], "preferred": []}}
    assert affinity({"affinity": theirs}) == {
        "nodeAffinity": {"a": "b"},
        "podAntiAffinity": {REQUIRED: [zone, APART], "preferred": []},
    }


@pytest.mark.parametrize("broken", ["no", {REQUIRED: "no"}])
def test_a_malformed_affinity_is_passed_on_to_the_api_server(broken: Any) -> None:
    assert affinity({"affinity": {"podAntiAffinity": broken}}) == {"podAntiAffinity": broken}


def test_if_the_operator_counts_failures_the_jobs_limit_is_raised_at_creation() -> None:
    assert job(retry={"limit": 2})["spec"]["backoffLimit"] == 2
    assert job(counts=True, retry={"limit": 2})["spec"]["backoffLimit"] == 102


def test_placement_fields_reach_the_pod_as_they_are() -> None:
    spread = {
        "maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {
            "matchLabels": {"app.kubernetes.io/name": "rft-trainer"},
            "matchExpressions": [{"key": "team", "operator": "In", "values": ["a"]}],
        },
        "matchLabelKeys": ["team"],
        "minDomains": 2,
        "nodeAffinityPolicy": "Honor",
        "nodeTaintsPolicy": "Ignore",
    }
    given = {
        "runtimeClassName": "nvidia",
        "schedulerName": "volcano",
        "topologySpreadConstraints": [spread],
    }
    pod = job(template=given)["spec"]["template"]["spec"]
    assert {name: pod[name] for name in given} == given
    assert not set(given) & set(job()["spec"]["template"]["spec"])


def test_a_pod_always_selects_linux_nodes() -> None:
    linux = {"kubernetes.io/os": "linux"}
    assert job()["spec"]["template"]["spec"]["nodeSelector"] == linux
    theirs = {"accelerator": {"name": "cpu"}, "nodeSelector": {"kubernetes.io/os": "windows", "pool": "a"}}
    selector = job(resources=theirs)["spec"]["template"]["spec"]["nodeSelector"]
    assert selector == {"pool": "a", **linux}


@pytest.mark.parametrize(
    "source",
    [
        {"secretKeyRef": {"name": "bucket", "key": "secret", "optional": True}},
        {"configMapKeyRef": {"name": "proxy", "key": "https"}},
        {"fieldRef": {"fieldPath": "status.hostIP"}},
        {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}},
    ],
)
def test_a_variable_takes_its_value_from_where_the_job_says(source: dict[str, Any]) -> None:
    given = {"name": "MINE", "valueFrom": source}
    assert given in containers(job(template={"env": [given]}))["trainer"]["env"]


def test_the_reserved_variables_are_those_that_the_operator_sets() -> None:
    made = job(model={"name": "/models/SmolLM2-135M"}, template={})
    assert sorted(v["name"] for v in containers(made)["trainer"]["env"]) == sorted(OPERATOR_VARIABLES)


@pytest.mark.parametrize(
    ("cache", "claim_name"),
    [
        ({"persistentVolumeClaim": {"claimName": "models"}}, "models"),
        ({"claimTemplate": {"size": "40Gi"}}, f"{OWNER.child}-hub"),
    ],
)
def test_only_the_trainer_mounts_the_cache_of_models(cache: dict[str, Any], claim_name: str) -> None:
    made = job(model={**SPEC["model"], "cache": cache})
    trainer, grader = containers(made)["trainer"], containers(made)["grader"]
    assert volume(made, "hub")["persistentVolumeClaim"] == {"claimName": claim_name}
    (path,) = [path for path, name in mounts(trainer).items() if name == "hub"]
    assert {"name": "HF_HUB_CACHE", "value": path} in trainer["env"]
    assert "hub" not in mounts(grader).values()
    assert "HF_HUB_CACHE" not in [variable["name"] for variable in grader["env"]]
    assert "hub" not in mounts(containers(job())["trainer"]).values()


def test_the_claim_for_models_is_named_by_the_uid() -> None:
    template = ClaimTemplate(size="40Gi", retain=False)
    made = claim(OWNER, template, OWNER.cache)
    assert made["metadata"]["name"] == f"sums-{uid8(OWNER.uid)}-hub"
    assert made["metadata"]["ownerReferences"][0]["uid"] == OWNER.uid
    assert made["spec"]["resources"]["requests"]["storage"] == "40Gi"


def test_gpus_of_a_claim_are_not_requested_as_an_extended_resource() -> None:
    claims = [
        {"name": "gpus", "resourceClaimTemplateName": "two-h100"},
        {"name": "net", "resourceClaimName": "rdma"},
    ]
    resources = {"accelerator": {"name": "nvidia-h100-80gb"}, "gpus": 2, "gpuClaim": "gpus"}
    made = job(resources=resources, template={"resourceClaims": claims})
    pod = made["spec"]["template"]["spec"]
    assert pod["resourceClaims"] == claims
    assert "tolerations" not in pod
    trainer, grader = containers(made)["trainer"]["resources"], containers(made)["grader"]["resources"]
    assert trainer["claims"] == [{"name": "gpus"}, {"name": "net"}]
    assert "nvidia.com/gpu" not in trainer["limits"]
    assert "claims" not in grader
    beside = job(resources={"gpus": 2}, template={"resourceClaims": claims[1:]})
    assert containers(beside)["trainer"]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert "claims" not in containers(job())["trainer"]["resources"]
