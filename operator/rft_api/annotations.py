"""Annotations of pods that widen rights. Runtimes, network plugins and clouds read them.

Fields with the same effect, such as security contexts and hostNetwork, are not offered, so these annotations
are refused too.
"""

from typing import NamedTuple

from rft_api.cel import Cel

PROFILE = "runtime/default"
"""The only profile for AppArmor and seccomp that a job may name. Pods have it in any case."""

PROFILES = (
    "container.apparmor.security.beta.kubernetes.io/",
    "container.seccomp.security.alpha.kubernetes.io/",
    "seccomp.security.alpha.kubernetes.io/",
)
"""Beginnings of annotations with a profile for AppArmor or seccomp."""


class AnnotationGroup(NamedTuple):
    """A group of annotations that are refused whatever their value is."""

    why: str
    """What the annotations do, as the end of a sentence about one of them."""
    begins: tuple[str, ...]
    ends: tuple[str, ...] = ()

    def has(self, key: str) -> bool:
        """Whether an annotation belongs to this group."""
        return key.startswith(self.begins) or key.endswith(self.ends)


REFUSED = (
    AnnotationGroup(
        "changes how the container runtime confines the container, or gives it devices of the node",
        (
            "io.kubernetes.cri-o.",
            "seccomp-profile.kubernetes.cri-o.io",
            "seccomp-profile.crio.io/",
            "unified-cgroup.crio.io/",
            "io.katacontainers.",
            "dev.gvisor.",
            "cdi.k8s.io/",
            "cdi-devices.nri.io",
            "devices.nri.io",
            "mounts.nri.io",
            "cdi-devices.noderesource.dev",
            "devices.noderesource.dev",
            "mounts.noderesource.dev",
        ),
        (".crio.io",),
    ),
    AnnotationGroup(
        "gives the pod networks or addresses beyond those that the cluster's policies are written for",
        (
            "k8s.v1.cni.cncf.io/",
            "v1.multus-cni.io/",
            "cni.projectcalico.org/",
            "k8s.ovn.org/",
            "ovn.kubernetes.io/",
        ),
    ),
    AnnotationGroup(
        "gives all containers of the pod a cloud identity, users' code included; name a ServiceAccount with a"
        " role in spec.template.serviceAccountName instead",
        ("iam.amazonaws.com/", "azure.workload.identity/inject-proxy-sidecar"),
    ),
)


def problem_of(key: str, value: str) -> str | None:
    """Return what is wrong with an annotation of a pod, or None if it widens no rights."""
    if key.startswith(PROFILES):
        if value == PROFILE:
            return None
        return (
            f"{value!r} would replace the profile that confines the container; allowed is {PROFILE}, which"
            f" pods have in any case; write {PROFILE} or remove the line"
        )
    why = next((group.why for group in REFUSED if group.has(key)), None)
    return f"{value!r} is refused, as the annotation {why}; remove the line" if why else None


def cel() -> Cel:
    """Return the CEL rule that no annotation of the pod widens its rights.

    It holds for RFTJobs that the operator has not seen yet. An API server without ratcheting checks all rules
    at each write of a status, and an RFTJob that an older release accepted must still get its status.
    """
    begins = [begin for group in REFUSED for begin in group.begins]
    ends = [end for group in REFUSED for end in group.ends]
    refused = [f"key.startsWith('{begin}')" for begin in begins] + [f"key.endsWith('{end}')" for end in ends]
    profiles = " || ".join(f"key.startsWith('{begin}')" for begin in PROFILES)
    given = "self.spec.template.annotations"
    return Cel(
        "",
        "has(self.status) && has(self.status.phase)"
        f" || !has(self.spec.template) || !has({given})"
        f" || {given}.all(key, !({' || '.join(refused)}) && (!({profiles}) || {given}[key] == '{PROFILE}'))",
        "spec.template.annotations: annotations that change a pod's rights are refused; of AppArmor and"
        f" seccomp only {PROFILE} is allowed; remove {', '.join(f'{begin}*' for begin in begins)},"
        f" {', '.join(f'*{end}' for end in ends)}",
    )
