"""A message of Kubernetes that refuses something gets a sentence that says which field to change.

The messages are those of Kubernetes 1.36: of the API server, its admission plugins, the controllers, the
scheduler and the kubelet.
"""

from typing import Any

import pytest

from rft_api.validation import parse
from rft_operator.refusals import advised, explained
from tests.unit.reconcile_support import rftjob

TEMPLATE = {"claimTemplate": {"size": "1Gi", "storageClassName": "fast"}}
CACHE = {"name": "SmolLM2-135M", "cache": {"claimTemplate": {"size": "2Gi"}}}
POLICY = (
    "ValidatingAdmissionPolicy 'owners' with binding 'owners' denied request: set spec.template.labels.owner"
)
NO_NODE = "0/3 nodes are available:"
TAINTED = f"{NO_NODE} 1 node(s) had untolerated taint(s),"
LONG = "t" * 64


def template(**changes: Any) -> dict[str, Any]:
    return {"template": changes}


@pytest.mark.parametrize(
    ("message", "spec", "wanted"),
    [
        (
            "exceeded quota: few, requested: requests.storage=1Gi, used: requests.storage=0,"
            " limited: requests.storage=1Mi",
            {"storage": TEMPLATE},
            "Lower spec.storage.claimTemplate.size, wait until other objects are gone, or raise",
        ),
        (
            "exceeded quota: few, requested: fast.storageclass.storage.k8s.io/requests.storage=1Gi,"
            " used: fast.storageclass.storage.k8s.io/requests.storage=0, limited: x=1Mi",
            {"storage": TEMPLATE, "model": CACHE},
            "Lower spec.storage.claimTemplate.size, wait",
        ),
        (
            "exceeded quota: few, requested: requests.storage=2Gi, used: requests.storage=0,"
            " limited: requests.storage=1Mi",
            {"model": CACHE},
            "Lower spec.model.cache.claimTemplate.size, wait",
        ),
        (
            "exceeded quota: few, requested: persistentvolumeclaims=1, used: persistentvolumeclaims=0,"
            " limited: persistentvolumeclaims=0",
            {"storage": TEMPLATE},
            "Name an existing claim in spec.storage.persistentVolumeClaim, wait until",
        ),
        (
            "exceeded quota: few, requested: requests.ephemeral-storage=1933Mi,"
            " used: requests.ephemeral-storage=0, limited: requests.ephemeral-storage=1Mi",
            {},
            "Lower spec.resources.ephemeralStorage, wait",
        ),
        (
            "maximum storage usage per PersistentVolumeClaim is 1Mi, but request is 1Gi.",
            {"storage": TEMPLATE},
            "Lower spec.storage.claimTemplate.size to 1Mi, or change the namespace's LimitRange.",
        ),
        (
            "cpu max limit to request ratio per Container is 2, but provided ratio is 20.000000",
            {},
            "Set spec.resources.cpuLimit to at most 2 times spec.resources.cpu, or change the namespace's",
        ),
        (
            "memory max limit to request ratio per Container is 2, but provided ratio is 6.000000",
            {},
            "Change the namespace's LimitRange.",
        ),
        (
            "no PriorityClass with name urgent was found",
            template(priorityClassName="urgent"),
            "Create the PriorityClass urgent, or correct spec.template.priorityClassName.",
        ),
        (
            'pod rejected: RuntimeClass "kata" not found',
            template(runtimeClassName="kata"),
            "Create the RuntimeClass kata, or correct spec.template.runtimeClassName.",
        ),
        (
            'PodResourceClaim gpu: resource claim template "gpus": resourceclaimtemplate.resource.k8s.io'
            ' "gpus"'
            " not found",
            template(resourceClaims=[{"name": "gpu", "resourceClaimTemplateName": "gpus"}]),
            "Create the ResourceClaimTemplate gpus, or correct"
            " spec.template.resourceClaims[0].resourceClaimTemplateName.",
        ),
        (
            f'{NO_NODE} persistentvolumeclaim "runs" not found. not found',
            {},
            "Create the PersistentVolumeClaim runs, or correct spec.storage.persistentVolumeClaim.claimName.",
        ),
        (
            'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "mesh"'
            " must"
            " set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers"
            ' "trainer", "mesh" must set securityContext.capabilities.drop=["ALL"])',
            {},
            "such as a service mesh, adds the container mesh to the pod: prevent this by"
            " spec.template.annotations",
        ),
        (POLICY, {}, "The policy owners of this cluster refuses the object: do what its message says"),
        (
            'Internal error occurred: failed calling webhook "pods.example.com": failed to call webhook: Post'
            ' "https://none.team.svc:443/?timeout=2s": service "none" not found',
            {},
            "The webhook pods.example.com of this cluster does not answer: ask the person who maintains it.",
        ),
        (
            'configmaps "sums" is forbidden: unable to create new content in namespace team because it is'
            " being"
            " terminated",
            {},
            "create the job in another namespace.",
        ),
        (
            f'Job.batch "sums" is invalid: [metadata.labels: Invalid value: "{LONG}": must be no more than 63'
            f' bytes, spec.template.labels: Invalid value: "{LONG}": must be no more than 63 bytes]',
            template(labels={"team": LONG}),
            "Correct spec.template.labels.team.",
        ),
        (
            'Job.batch "sums" is invalid: metadata.labels: Invalid value: "a b": name part must consist of',
            template(labels={"a b": "x"}),
            "Correct spec.template.labels.",
        ),
        (
            'Job.batch "sums" is invalid: spec.template.spec.containers[0].volumeMounts[6].mountPath: Invalid'
            ' value: "/data/train": must be unique',
            template(volumes=[{"name": "e", "mountPath": "/data/train", "configMap": "rows"}]),
            "Correct spec.template.volumes[0].mountPath.",
        ),
        (
            'Job.batch "sums" is invalid: spec.template.spec.tolerations[0].operator: Invalid value: "b":'
            " value"
            " must be empty when `operator` is 'Exists'",
            {"resources": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}},
            "Correct spec.resources.tolerations[0].value.",
        ),
        (
            'Job in version "v1" cannot be handled as a Job: json: cannot unmarshal string into Go struct'
            " field"
            " Affinity.spec.template.spec.affinity.podAffinity of type v1.PodAffinity",
            template(affinity={"podAffinity": "near"}),
            "Correct spec.template.affinity.podAffinity.",
        ),
        (
            'PersistentVolumeClaim "sums" is invalid: spec.accessModes: Forbidden: may not use'
            " ReadWriteOncePod"
            " with other access modes",
            {"storage": TEMPLATE},
            "Correct spec.storage.claimTemplate.accessModes.",
        ),
        (
            'Pod "sums-x" is invalid: spec.containers[0].resources.requests: Invalid value: "2": must be less'
            " than or equal to cpu limit of 1",
            {},
            "Correct spec.resources.cpu and spec.resources.cpuLimit.",
        ),
        ('Job.batch "sums" is invalid: spec.backoffLimit: Invalid value: -1: must be more than 0', {}, ""),
        (
            f"{TAINTED} 2 node(s) didn't match Pod's node affinity/selector.",
            {},
            "Change spec.resources.nodeSelector, or label a node; or for a tainted node, add a toleration to"
            " spec.resources.tolerations.",
        ),
        (
            f"{NO_NODE} 2 node(s) didn't match Pod's node affinity/selector.",
            {"resources": {"accelerator": {"name": "nvidia-h100-80gb"}, "gpus": 1}},
            "Change spec.resources.accelerator.name, or label a node.",
        ),
        (
            f"{NO_NODE} 2 node(s) didn't match Pod's node affinity/selector.",
            template(affinity={"nodeAffinity": {}}),
            "Change spec.template.affinity, or label a node.",
        ),
        (
            f"{NO_NODE} 2 node(s) didn't match pod topology spread constraints (missing required label).",
            {},
            "Change spec.template.topologySpreadConstraints.",
        ),
        (f"{NO_NODE} 2 node(s) didn't match pod affinity rules.", {}, "Change spec.template.affinity."),
        (
            f"{NO_NODE} 2 node(s) didn't match PersistentVolume's node affinity.",
            {},
            "Correct spec.storage.persistentVolumeClaim.claimName.",
        ),
        (
            f"{NO_NODE} 2 node(s) didn't find available persistent volumes to bind.",
            {"storage": TEMPLATE},
            "Correct spec.storage.claimTemplate, or create a PersistentVolume for it.",
        ),
        (
            f"{NO_NODE} 2 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode"
            " already in-use by another pod.",
            {},
            "Wait until the other pod has ended, or correct spec.storage.persistentVolumeClaim.claimName.",
        ),
        ("Scheduling is blocked due to non-empty scheduling gates", {}, "The person or program that added"),
        (f"{NO_NODE} 3 node(s) were unschedulable.", {}, "kubectl uncordon"),
        (
            'Multi-Attach error for volume "v" Volume is already used by pod(s) holder',
            {},
            "released the volume: end the pods holder, or correct"
            " spec.storage.persistentVolumeClaim.claimName.",
        ),
        (
            "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: no"
            ' runtime for "kata" is configured',
            {},
            "handler kata: correct spec.template.runtimeClassName, or choose nodes",
        ),
        (
            "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network",
            {},
            "Ask the person who maintains the node",
        ),
        (
            'MountVolume.MountDevice failed for volume "v" : kubernetes.io/csi: attacher.MountDevice failed'
            " to"
            " create newCsiDriverClient: driver name disks.example.com not found in the list of registered"
            " CSI"
            " drivers",
            {},
            "Install the CSI driver disks.example.com on the node",
        ),
        (
            'MountVolume.SetUp failed for volume "v" : hostPath type check failed: /models is not a'
            " directory",
            {},
            "Create /models on the node, correct the PersistentVolume, or correct"
            " spec.storage.persistentVolumeClaim.claimName.",
        ),
        (
            "Unable to retrieve some image pull secrets (pull, other); attempting to pull the image may not"
            " succeed.",
            template(imagePullSecrets=[{"name": "pull"}]),
            "Create the Secrets pull and other, or correct spec.template.imagePullSecrets[0].name.",
        ),
        (
            'ErrImageNeverPull: Container image "a:1" is not present with pull policy of Never',
            template(image="a:1"),
            "change spec.template.imagePullPolicy, or correct spec.template.image.",
        ),
        (
            'InvalidImageName: Failed to apply default image tag "A/B": couldn\'t parse image name "A/B":'
            " invalid reference format: repository name must be lowercase",
            template(image="A/B"),
            "Correct spec.template.image.",
        ),
        (
            'ErrImagePull: failed to pull and unpack image "registry.invalid/none:1": failed to do request:'
            " dial"
            " tcp: lookup registry.invalid: no such host",
            template(image="registry.invalid/none:1"),
            "Let the node reach the registry, or correct the registry in spec.template.image.",
        ),
        (
            'ErrImagePull: failed to pull image "docker.io/a:1": pull access denied, repository does not'
            " exist"
            " or may require authorization",
            {},
            "Name a Secret for the registry in spec.template.imagePullSecrets, or correct the chart's value"
            " trainer.image.",
        ),
        ("something new", {}, ""),
    ],
)
def test_a_refusal_has_advice(message: str, spec: dict[str, Any], wanted: str) -> None:
    said = advised(message, parse(rftjob(**spec)).spec)
    assert wanted in said if wanted else said == ""


def test_without_a_spec_the_advice_names_no_field_that_may_not_exist() -> None:
    assert advised('configmap "rows" not found', None) == "Create the ConfigMap rows."
    assert advised(f"{NO_NODE} 1 node(s) didn't match PersistentVolume's node affinity.", None) == (
        "Change the claim."
    )


def test_an_explanation_has_the_cause_and_then_the_advice() -> None:
    said = explained("The pod cannot start", 'secret "hub" not found', None)
    assert said == 'The pod cannot start: secret "hub" not found. Create the Secret hub.'
    assert explained("The pod cannot start", "it does not.", None) == "The pod cannot start: it does not."


TWO_CLAIMS = parse(
    rftjob(
        model={"name": "SmolLM2-135M", "cache": {"claimTemplate": {"size": "40Gi"}}},
        storage={"claimTemplate": {"size": "5Gi"}},
    )
).spec
FULL = "exceeded quota: few, requested: {0}={1}, used: {0}=0, limited: {0}=1Gi."
ONE, OTHER = "spec.storage.claimTemplate.size", "spec.model.cache.claimTemplate.size"


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (FULL.format("requests.storage", "5Gi"), f"Lower {ONE}, wait"),
        (FULL.format("requests.storage", "40Gi"), f"Lower {OTHER}, wait"),
        (FULL.format("requests.storage", "7Gi"), f"Lower {ONE} or {OTHER}, wait"),
        (FULL.format("fast.storageclass.storage.k8s.io/requests.storage", "5Gi"), f"Lower {ONE}, wait"),
        (
            "maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 40Gi.",
            f"Lower {OTHER} to 1Gi, or change the namespace's LimitRange.",
        ),
    ],
)
def test_of_two_claims_the_one_is_named_whose_size_was_requested(message: str, wanted: str) -> None:
    assert advised(message, TWO_CLAIMS).startswith(wanted)
