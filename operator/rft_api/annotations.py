"""Refuses annotations that would give the pod of an RFTJob more rights.

Container runtimes, network plugins and clouds obey such annotations. An RFTJob cannot request these rights by
fields either: it has no field for a security context or for hostNetwork.
"""

from typing import NamedTuple

from rft_api.cel import Cel

PROFILE = "runtime/default"
"""The only profile for AppArmor and seccomp that an annotation of a job may name. A pod without such an
annotation has this profile too.
"""

PROFILES = (
    "container.apparmor.security.beta.kubernetes.io/",
    "container.seccomp.security.alpha.kubernetes.io/",
    "seccomp.security.alpha.kubernetes.io/",
)
"""Beginnings of the keys of annotations whose value is a profile for AppArmor or seccomp."""


class AnnotationGroup(NamedTuple):
    """A group of annotations that a job must not give its pod, whatever their values are.

    To the group belongs each annotation whose key begins with one of ``begins`` or ends with one of ``ends``.
    All of them are refused for the same reason.
    """

    why: str
    """What such an annotation does, as the end of the sentence "The annotation …"."""
    begins: tuple[str, ...]
    ends: tuple[str, ...] = ()

    def has(self, key: str) -> bool:
        """Return whether the annotation with this key belongs to the group."""
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
        "gives the pod networks or addresses to which the cluster's NetworkPolicies may not apply",
        (
            "k8s.v1.cni.cncf.io/",
            "v1.multus-cni.io/",
            "cni.projectcalico.org/",
            "k8s.ovn.org/",
            "ovn.kubernetes.io/",
        ),
    ),
    AnnotationGroup(
        "gives a cloud identity to all containers of the pod, also to the container with users' code; set"
        " spec.template.serviceAccountName to a ServiceAccount with a cloud identity instead",
        ("iam.amazonaws.com/", "azure.workload.identity/inject-proxy-sidecar"),
    ),
)


def problem_of(key: str, value: str) -> str | None:
    """Return the message for an annotation that is refused in a job's pod, or None if it is allowed."""
    if key.startswith(PROFILES):
        if value == PROFILE:
            return None
        return (
            f"{value!r} would replace the profile that confines the container; only {PROFILE} is allowed,"
            f" which pods have by default; write {PROFILE} or remove the line"
        )
    why = next((group.why for group in REFUSED if group.has(key)), None)
    return f"{value!r} is refused, as the annotation {why}; remove the line" if why else None


def cel() -> Cel:
    """Return the CEL rule by which the API server refuses annotations that would give the pod more rights.

    The rule applies only to new RFTJobs, whose status has no phase yet. An RFTJob with a phase may have such
    an annotation, because an older release of the operator accepted it. The operator must still be able to
    write this RFTJob's status. But old API servers check all rules at each write, also for fields that have
    not changed.
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
        "spec.template.annotations: annotations that change a pod's rights are refused; for AppArmor and"
        f" seccomp, only {PROFILE} is allowed; remove {', '.join(f'{begin}*' for begin in begins)},"
        f" {', '.join(f'*{end}' for end in ends)}",
    )
