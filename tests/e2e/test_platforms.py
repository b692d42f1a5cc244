"""A job succeeds in a namespace like those of OpenShift, with a ResourceQuota and a LimitRange.

OpenShift refuses pods that name their users. It assigns a user and a group to each namespace. Here two
admission policies do the same.
"""

import random
from collections.abc import Iterator
from copy import copy

import pytest

from tests.chaos.jobs import job, prerequisites
from tests.e2e.conftest import install
from tests.e2e.jobs_support import ended, pods
from tests.kubectl import Kubectl, Object
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(600)]

NAME = "assigned"
NAMESPACE = "rft-assigned"
GROUP = "admissionregistration.k8s.io"
API = f"{GROUP}/v1"
PODS = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
GRADER = "import os\n\ndef grade(completion, row):\n    return float(os.getuid() == int(row['uid']))\n"


def _object(api: str, kind: str, name: str, **rest: object) -> Object:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, **rest}


def policies(user: int) -> list[Object]:
    """Return two policies of the namespace, with their bindings. One sets the user of pods and the group of
    their volumes. The other refuses containers that name a user.
    """
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}}
    security = f"Object.spec.securityContext{{runAsUser: {user}, fsGroup: {user}}}"
    apply = {"expression": f"Object{{spec: Object.spec{{securityContext: {security}}}}}"}
    mutation = {"patchType": "ApplyConfiguration", "applyConfiguration": apply}
    named = "object.spec.containers.exists(c, has(c.securityContext) && has(c.securityContext.runAsUser))"
    rules = {"matchConstraints": {"resourceRules": [PODS]}, "failurePolicy": "Fail"}
    assigns = {**rules, "reinvocationPolicy": "Never", "mutations": [mutation]}
    refuses = {**rules, "validations": [{"expression": f"!{named}", "message": "name no user"}]}
    binding = {"policyName": NAME, "matchResources": here}
    return [
        _object(API, "MutatingAdmissionPolicy", NAME, spec=assigns),
        _object(API, "ValidatingAdmissionPolicy", NAME, spec=refuses),
        _object(
            API, "MutatingAdmissionPolicyBinding", NAME, spec={"policyName": NAME, "matchResources": here}
        ),
        _object(
            API, "ValidatingAdmissionPolicyBinding", NAME, spec=binding | {"validationActions": ["Deny"]}
        ),
    ]


def limits() -> list[Object]:
    """Return a quota and a LimitRange. With them a container without limits for CPU and memory is refused."""
    cpu, memory = {"limits.cpu": "4", "requests.cpu": "2"}, {"limits.memory": "8Gi", "requests.memory": "8Gi"}
    hard = cpu | memory | {"pods": "2"}
    largest = {"type": "Container", "max": {"cpu": "3", "memory": "6Gi"}}
    return [
        _object("v1", "ResourceQuota", NAME, spec={"hard": hard}),
        _object("v1", "LimitRange", NAME, spec={"limits": [largest]}),
    ]


@pytest.fixture
def place(kubectl: Kubectl) -> Iterator[Kubectl]:
    """kubectl in a new namespace. The operator sets no users in its pods: a policy assigns them."""
    place = copy(kubectl)
    place.namespace = NAMESPACE
    if "mutatingadmissionpolicies" not in kubectl.run("api-resources", f"--api-group={GROUP}").stdout:
        pytest.skip("this API server has no MutatingAdmissionPolicy in version v1, so nothing assigns users")
    install("--set", "assignsUsers=true")
    kubectl.apply(_object("v1", "Namespace", NAMESPACE))
    yield place
    kubectl.run("delete", "namespace", NAMESPACE, "--wait=false")
    for kind in ("mutatingadmissionpolicy", "validatingadmissionpolicy"):
        kubectl.run("delete", kind, NAME, "--ignore-not-found")
        kubectl.run("delete", f"{kind}binding", NAME, "--ignore-not-found")
    install()


def test_a_job_succeeds_with_an_assigned_user_within_quota_and_limit_range(place: Kubectl) -> None:
    user = random.randrange(1_000_000_000, 1_000_100_000)
    place.apply(*policies(user), *limits())
    made = job(NAME, "transformers")
    made["spec"]["graders"].append({"name": "user", "python": {"inline": GRADER}})
    made["spec"] |= {"stop": {"maxSteps": 2}, "storage": {"ephemeral": {}}, "evaluation": {"fraction": 0}}
    rows = "\n".join(
        f'{{"messages": [{{"role": "user", "content": "{a}+{b}"}}], "uid": {user}}}'
        for a in range(10, 20)
        for b in range(10, 20)
    )
    model, data, _ = prerequisites()
    data["data"] = {"rows.jsonl": rows}
    place.apply(model, data, made)
    pod = wait_until("a pod is made", lambda: next(iter(pods(place, NAME)), None), 60)
    assert pod["spec"]["securityContext"]["runAsUser"] == user
    found = wait_until("the job ends", lambda: ended(place, NAME), 300)
    assert found["phase"] == "Succeeded", found
    assert found["progress"]["step"] == 2
    assert found["reward"]["graders"]["user"] == 1, "the grader must run with the assigned user"
