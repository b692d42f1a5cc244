"""An annotation that gives a pod more rights is refused. All other annotations are kept."""

import pytest

from rft_api.annotations import PROFILE, PROFILES, REFUSED, problem_of
from rft_api.cel import Cel
from rft_api.rules import annotations_widen_no_rights
from rft_api.validation import check
from tests.manifests import manifest


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("container.apparmor.security.beta.kubernetes.io/trainer", "unconfined"),
        ("container.apparmor.security.beta.kubernetes.io/grader", "localhost/own"),
        ("container.apparmor.security.beta.kubernetes.io/any-other", "runtime/default "),
        ("seccomp.security.alpha.kubernetes.io/pod", "unconfined"),
        ("container.seccomp.security.alpha.kubernetes.io/grader", "Runtime/Default"),
        ("io.kubernetes.cri-o.userns-mode", "auto"),
        ("seccomp-profile.kubernetes.cri-o.io/grader", "quay.io/own/profile"),
        ("io.katacontainers.config.hypervisor.kernel_params", "init=/bin/sh"),
        ("seccomp-profile.crio.io/grader", "quay.io/own/profile"),
        ("dev.gvisor.flag.network", "host"),
        ("devices.nri.io", "- path: /dev/mem"),
        ("devices.noderesource.dev/container.grader", "- path: /dev/mem"),
        ("cdi.k8s.io/gpus", "nvidia.com/gpu=all"),
        ("irq-load-balancing.crio.io", "disable"),
        ("v1.multus-cni.io/default-network", "other"),
        ("cni.projectcalico.org/ipAddrs", '["10.0.0.7"]'),
        ("iam.amazonaws.com/role", "admin"),
        ("azure.workload.identity/inject-proxy-sidecar", "false"),
    ],
)
def test_an_annotation_that_widens_rights_is_refused_and_the_message_says_what_to_do(
    key: str, value: str
) -> None:
    (problem,) = check(manifest(template={"annotations": {"owner": "me", key: value}})).problems
    assert problem.path == f"spec.template.annotations.{key}"
    assert repr(value) in problem.message
    assert "remove the line" in problem.message
    assert ("write runtime/default" in problem.message) == key.startswith(PROFILES)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("container.apparmor.security.beta.kubernetes.io/trainer", PROFILE),
        ("seccomp.security.alpha.kubernetes.io/pod", PROFILE),
        ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
        ("karpenter.sh/do-not-disrupt", "true"),
        ("prometheus.io/scrape", "true"),
        ("sidecar.istio.io/inject", "false"),
        ("azure.workload.identity/skip-containers", "proxy"),
        ("example.com/apparmor", "unconfined"),
    ],
)
def test_other_annotations_are_kept(key: str, value: str) -> None:
    job, problems = check(manifest(template={"annotations": {key: value}}))
    assert problems == ()
    assert job is not None
    assert job.spec.template is not None
    assert job.spec.template.annotations == {key: value}


def test_cel_names_every_annotation_that_the_python_rule_refuses() -> None:
    (text,) = annotations_widen_no_rights.cel
    assert isinstance(text, Cel)
    for group in REFUSED:
        for begin in group.begins:
            assert f"key.startsWith('{begin}')" in text.expression
            assert problem_of(f"{begin}x", PROFILE)
        for end in group.ends:
            assert f"key.endsWith('{end}')" in text.expression
            assert problem_of(f"x{end}", PROFILE)
    for begin in PROFILES:
        assert f"key.startsWith('{begin}')" in text.expression
        assert problem_of(f"{begin}x", "unconfined")
        assert problem_of(f"{begin}x", PROFILE) is None
