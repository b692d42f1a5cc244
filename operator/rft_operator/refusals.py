"""Gives advice on a message with which Kubernetes refuses something, with pure functions.

A remedy is a function for one kind of message. It returns a sentence that says which field of the spec to
change, or what else to do. For any other message it returns "". The first remedy in ``_REMEDIES`` that
returns a sentence decides.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rft_api.job import RFTJobSpec
from rft_operator.objects.pod import GRADER_AMOUNTS
from rft_planner.plan import CPU_NAME
from rft_run.config import GRADER_CONTAINER, TRAINER_CONTAINER

PULL_REASONS = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
)
"""The reasons with which a kubelet says that it has no image for a container."""


def explained(what: str, message: str, spec: RFTJobSpec | None) -> str:
    """Return a text for users: ``what`` happened, the ``message`` of Kubernetes as the cause, and advice if
    any is known.
    """
    said, advice = f"{what}: {message.rstrip('.')}.", advised(message, spec)
    return f"{said} {advice}" if advice else said


def advised(message: str, spec: RFTJobSpec | None) -> str:
    """Return a sentence that says what to do about a message of Kubernetes, or "" if no advice is known."""
    advice = next((text for remedy in _REMEDIES if (text := remedy(message, spec))), "")
    return f"{advice}." if advice else ""


# Remedies: each returns a sentence for one kind of message, and "" for all other messages.

_FIELDS = {
    "memory": "spec.resources.memory",
    "cpu": "spec.resources.cpu",
    "limits.cpu": "spec.resources.cpuLimit",
    "ephemeral-storage": "spec.resources.ephemeralStorage",
}


def _field_of(resource: str, amount: str, spec: RFTJobSpec | None) -> str:
    """Return the path of the field of the spec that decides how much of ``resource`` a run requests. Return
    "" if there is none.

    ``amount`` is the amount of the resource that the refused object requests. If a run has two claims, the
    amount shows which of them was refused. If it does not, the paths for both are returned, joined by "or".
    """
    # A quota may be for one StorageClass: fast.storageclass.storage.k8s.io/requests.storage.
    in_class = resource.rpartition(".storageclass.storage.k8s.io/")[2]
    name = in_class.removeprefix("requests.").removeprefix("limits.")
    if name == "storage":
        sizes = [path for path in _paths(amount, spec) if path.endswith("claimTemplate.size")]
        return " or ".join(sizes) or _of_templates("size", spec)
    if "/" in name and "gpu" in name:
        return "spec.resources.gpus"
    return _FIELDS.get(resource) or _FIELDS.get(name, "")


def _of_templates(field: str, spec: RFTJobSpec | None) -> str:
    """Return the paths of the field ``field`` in the claim templates of the spec, joined by "or"."""
    cache = spec.model.cache.claim_template if spec is not None and spec.model.cache is not None else None
    runs = spec is None or spec.storage.claim_template is not None or cache is None
    found = [f"spec.storage.claimTemplate.{field}"] if runs else []
    found += [f"spec.model.cache.claimTemplate.{field}"] if cache is not None else []
    return " or ".join(found)


def _quota(message: str, spec: RFTJobSpec | None) -> str:
    found = re.search(r"exceeded quota: (\S+), requested: (\S+), used: \S+, limited: \S+", message)
    if found is None:
        return ""
    requested = [part.partition("=")[::2] for part in found[2].split(",")]
    fields = [_field_of(resource, amount, spec) for resource, amount in requested]
    lower = f"lower {' and '.join(dict.fromkeys(filter(None, fields)))}, " if any(fields) else ""
    if any(resource.endswith("persistentvolumeclaims") for resource, _ in requested):
        lower += "name an existing claim in spec.storage.persistentVolumeClaim, "
    return _sentence(f"{lower}wait until other objects are gone, or raise the ResourceQuota {found[1]}")


def _must_specify(message: str, _spec: RFTJobSpec | None) -> str:
    found = re.search(r"failed quota: (\S+): must specify (\S+)", message)
    if found is None:
        return ""
    set_field = "set spec.resources.cpuLimit, or " if "limits.cpu" in found[2] else ""
    return (
        f"The ResourceQuota {found[1]} requires {found[2]} on every container: {set_field}give the namespace"
        f" a LimitRange with a default for {found[2]}"
    )


def _limit_range(message: str, spec: RFTJobSpec | None) -> str:
    found = re.search(
        r"(maximum|minimum) (\S+) usage per (?:Container|Pod|PersistentVolumeClaim) is (\S+),"
        r" but (limit|request) is ([^\s.,]+)",
        message,
    )
    if found is None:
        return ""
    # The message does not name the container. If the amount is one that the grader container has, no field
    # changes it.
    fixed = found[2] != "storage" and found[5] in GRADER_AMOUNTS
    field = "" if fixed else _field_of(f"{found[4]}s.{found[2]}", found[5], spec)
    verb = "lower" if found[1] == "maximum" else "raise"
    change = f"{verb} {field} to {found[3].rstrip('.,')}, or " if field else ""
    return _sentence(f"{change}change the namespace's LimitRange")


def _ratio(message: str, _spec: RFTJobSpec | None) -> str:
    found = re.search(r"(\S+) max limit to request ratio per (?:Container|Pod) is ([^\s,]+)", message)
    if found is None:
        return ""
    # The trainer's memory request is equal to its limit. So for memory, only the grader container can be
    # refused, and no field changes its amounts.
    cpu = f"set spec.resources.cpuLimit to at most {found[2]} times spec.resources.cpu, or "
    return _sentence(f"{cpu if found[1] == 'cpu' else ''}change the namespace's LimitRange")


_KINDS_MISSING = (
    "configmap|secret|serviceaccount|persistentvolumeclaim|storageclass|runtimeclass|priorityclass"
    "|resourceclaimtemplate|resourceclaim"
)
_NOT_FOUND = re.compile(
    rf'\b({_KINDS_MISSING})\S* "?([^\s"]+)"? not found|\bno (PriorityClass) with name (\S+) was found',
    re.IGNORECASE,
)


def _missing(message: str, spec: RFTJobSpec | None) -> str:
    found = _NOT_FOUND.search(message)
    if found is None:
        return ""
    kind, name = found[1] or found[3], (found[2] or found[4]).rpartition("/")[2]
    return f"Create the {_KINDS[kind.lower()]} {name}{or_correct(name, spec)}"


_KINDS = {
    kind.lower(): kind
    for kind in (
        "ConfigMap",
        "Secret",
        "ServiceAccount",
        "PersistentVolumeClaim",
        "StorageClass",
        "RuntimeClass",
        "PriorityClass",
        "ResourceClaimTemplate",
        "ResourceClaim",
    )
}


def _pull_secret(message: str, spec: RFTJobSpec | None) -> str:
    found = re.search(r"Unable to retrieve some image pull secrets \(([^)]+)\)", message)
    if found is None:
        return ""
    names = found[1].split(", ")
    paths = [path for name in names for path in _paths(name, spec)]
    ends = f", or correct {' or '.join(paths)}" if paths else ""
    return f"Create the Secret{'s' * (len(names) > 1)} {' and '.join(names)}{ends}"


_NO_KEY = re.compile(r"references non-existent (?:config|secret) key: (\S+)|couldn't find key (\S+) in ")


def _key(message: str, spec: RFTJobSpec | None) -> str:
    found = _NO_KEY.search(message)
    if found is None:
        return ""
    key = found[1] or found[2]
    return f"Add the key {key}{or_correct(key, spec)}"


def _image(message: str, spec: RFTJobSpec | None) -> str:
    """Give advice if the kubelet has no image for a container. The advice names the field of the spec, or the
    value of the operator's chart, that has the name of the image.
    """
    reason = message.partition(":")[0]
    if reason not in PULL_REASONS:
        return ""
    template = spec.template if spec is not None else None
    own = template is not None and template.image is not None
    field = "spec.template.image" if own else "the chart's value trainer.image"
    if reason == "ErrImageNeverPull":
        return f"Load the image into the node, change spec.template.imagePullPolicy, or correct {field}"
    if re.search(r"unauthorized|authoriz|denied|forbidden|credential|\b40[13]\b", message, re.IGNORECASE):
        return f"Name a Secret for the registry in spec.template.imagePullSecrets, or correct {field}"
    if re.search(r"no such host|dial tcp|timeout|refused|RegistryUnavailable", message):
        return f"Let the node reach the registry, or correct the registry in {field}"
    return f"Correct {field}"


def _attached(message: str, spec: RFTJobSpec | None) -> str:
    if "Multi-Attach" not in message:
        return ""
    used = re.search(r"already used by pod\(s\) (.+?)\.?$", message)
    pods = f": end the pods {used[1]}" if used else ""
    claims = claims_of(spec)
    return (
        f"The pod starts by itself once the other node has released the volume{pods}"
        f"{f', or correct {claims}' if claims else ''}"
    )


def _no_class(message: str, _spec: RFTJobSpec | None) -> str:
    if "no storage class is set" not in message:
        return ""
    return "Set spec.storage.claimTemplate.storageClassName, or make one StorageClass the default"


def _security(message: str, _spec: RFTJobSpec | None) -> str:
    if "violates PodSecurity" not in message:
        return ""
    named = re.findall(r'containers? ("[^"]+"(?:(?:, | and )"[^"]+")*)', message)
    others = [name for part in named for name in re.findall(r'"([^"]+)"', part) if name not in _OWN]
    if not others:
        return (
            "The Pod Security level of the namespace refuses the pod: correct what spec.template adds to the"
            " pod"
        )
    names = ", ".join(dict.fromkeys(others))
    return (
        f"Another program of this cluster, such as a service mesh, adds the container {names} to the pod:"
        " prevent this by spec.template.annotations or spec.template.labels, or change the namespace's Pod"
        " Security level"
    )


_OWN = (TRAINER_CONTAINER, GRADER_CONTAINER)


def _policy(message: str, _spec: RFTJobSpec | None) -> str:
    found = re.search(
        r"admission webhook \"([^\"]+)\" denied the request|ValidatingAdmissionPolicy '([^']+)'", message
    )
    if found is None:
        return ""
    return (
        f"The policy {found[1] or found[2]} of this cluster refuses the object: do what its message says, or"
        " ask the person who maintains the policy"
    )


def _webhook(message: str, _spec: RFTJobSpec | None) -> str:
    found = re.search(r'failed calling webhook "([^"]+)"', message)
    if found is None:
        return ""
    return (
        f"The webhook {found[1]} of this cluster does not answer: ask the person who maintains it. The job"
        " goes on by itself once the webhook answers"
    )


def _ending(message: str, _spec: RFTJobSpec | None) -> str:
    if "because it is being terminated" not in message:
        return ""
    return "The namespace is being deleted: create the job in another namespace"


_WRONG = re.compile(r'" is invalid: \[?([A-Za-z][\w.\[\]/-]*): [A-Z]\w+(?: \w+)?(?:: "((?:[^"\\]|\\.)*)")?')
_UNREADABLE = re.compile(r"cannot unmarshal \S+ into Go struct field \S*?(spec\.[\w.]+) of type")


def _invalid(message: str, spec: RFTJobSpec | None) -> str:
    """Give advice if the API server refuses a value of the child Job, the pod or the claim. The advice names
    the field of the spec that has this value.
    """
    found = _UNREADABLE.search(message) or _WRONG.search(message)
    if found is None:
        return ""
    field = _of_child_field(found[1], spec)
    if not field:
        return ""
    value = found[2] if found.re is _WRONG else None
    exact = [path for path in _paths(value, spec) if _is_in(path, field)] if value else []
    return f"Correct {' or '.join(exact or [field])}"


def _is_in(path: str, field: str) -> bool:
    return path == field or path.startswith((f"{field}.", f"{field}["))


_CHILD_FIELDS: tuple[tuple[str, str], ...] = (
    # Each pair: the path of a field in the child Job, its pod or a claim, as a regular expression, and the
    # field of the RFTJob that sets it.
    (r"(?:metadata\.)?(labels|annotations)", r"spec.template.\1"),
    (r"(?:initC|c)ontainers\[\d+\]\.(image|env)", r"spec.template.\1"),
    (r"(?:initC|c)ontainers\[\d+\]\.volumeMounts|volumes", "spec.template.volumes"),
    (r"(nodeSelector|tolerations\[\d+\])", r"spec.resources.\1"),
    (
        r"((?:serviceAccountName|imagePullSecrets|affinity|topologySpreadConstraints|resourceClaims"
        r"|priorityClassName|runtimeClassName|schedulerName)[\w.\[\]]*)",
        r"spec.template.\1",
    ),
)


def _of_child_field(path: str, spec: RFTJobSpec | None) -> str:
    """Return the field of the spec from which the field ``path`` of a child object is made, or ""."""
    claim = re.match(r"spec\.(accessModes|storageClassName)|spec\.resources\.requests\[storage\]", path)
    if claim is not None:
        return _of_templates(claim[1] or "size", spec)
    inner = re.sub(r"^spec\.template\.(?:spec\.)?|^spec\.", "", path)
    amount = re.search(r"ontainers\[\d+\]\.resources\.(?:limits|requests)(?:\[([^\]]+)\])?", inner)
    if amount is not None:
        return _field_of(amount[1] or "", "", spec) or "spec.resources.cpu and spec.resources.cpuLimit"
    for pattern, field in _CHILD_FIELDS:
        found = re.match(pattern, inner)
        if found is not None:
            return found.expand(field)
    return ""


_PLACING: tuple[tuple[str, str], ...] = (
    # Each pair: a regular expression for the scheduler's message, and what to do. {claim} and {selector} are
    # replaced by ``_placing``.
    (r"pod topology spread constraints", "change spec.template.topologySpreadConstraints"),
    (r"anti-affinity rules|pod affinity rules", "change spec.template.affinity"),
    (r"PersistentVolume's node affinity|volume node affinity conflict", "{claim}"),
    (r"node affinity/selector", "change {selector}, or label a node"),
    (r"ReadWriteOncePod", "wait until the other pod has ended, or {claim}"),
    (r"persistent volumes to bind", "{claim}, or create a PersistentVolume for it"),
    (r"scheduling gates", "the person or program that added the scheduling gates must remove them"),
    (r"cannot allocate all claims|resource claim", "change spec.template.resourceClaims"),
    (r"were unschedulable", "make a cordoned node schedulable again: kubectl uncordon"),
    # This advice comes last, because it rarely helps: most clusters have nodes whose taints no job tolerates.
    (r"untolerated taint", "for a tainted node, add a toleration to spec.resources.tolerations"),
)


def _placing(message: str, spec: RFTJobSpec | None) -> str:
    """Give advice if the scheduler finds no node. The scheduler's message names each cause with the number of
    nodes that it excludes.
    """
    claims = claims_of(spec)
    words = {
        "claim": f"correct {claims}" if claims else "change the claim",
        "selector": _selectors(spec),
    }
    ways = [way.format(**words) for pattern, way in _PLACING if re.search(pattern, message)]
    return _sentence("; or ".join(ways))


def _selectors(spec: RFTJobSpec | None) -> str:
    """Return the paths of the fields of the spec from which the pod's node selector and node affinity are
    made, joined by "or".
    """
    resources, template = (spec.resources, spec.template) if spec is not None else (None, None)
    accelerator = resources.accelerator if resources is not None else None
    there = {
        "spec.resources.nodeSelector": resources is not None and bool(resources.node_selector),
        "spec.template.affinity": template is not None and bool(template.affinity),
        "spec.resources.accelerator.name": accelerator is not None
        and accelerator.name not in (None, CPU_NAME),
    }
    return " or ".join(path for path, is_set in there.items() if is_set) or "spec.resources.nodeSelector"


def claims_of(spec: RFTJobSpec | None) -> str:
    """Return the paths of the fields of the spec that name or describe the claims of a run, joined by "or".
    Return "" if there are none.
    """
    if spec is None:
        return ""
    storage, cache = spec.storage, spec.model.cache
    there = {
        "spec.storage.persistentVolumeClaim.claimName": storage.persistent_volume_claim,
        "spec.storage.claimTemplate": storage.claim_template,
        "spec.model.cache.persistentVolumeClaim.claimName": cache and cache.persistent_volume_claim,
        "spec.model.cache.claimTemplate": cache and cache.claim_template,
        "spec.dataset.persistentVolumeClaim.claimName": spec.dataset.persistent_volume_claim,
    }
    return " or ".join(path for path, value in there.items() if value is not None)


def claims_or_the_claim(spec: RFTJobSpec | None) -> str:
    """Return the text of ``claims_of``, or "the claim" if it is empty."""
    return claims_of(spec) or "the claim"


def _sandbox(message: str, _spec: RFTJobSpec | None) -> str:
    found = re.search(r'no runtime for "([^"]+)" is configured', message)
    if found is not None:
        return (
            f"The node has no container runtime with the handler {found[1]}: correct"
            " spec.template.runtimeClassName, or choose nodes with this handler by"
            " spec.resources.nodeSelector"
        )
    if "pod sandbox" not in message:
        return ""
    return "Ask the person who maintains the node, or choose other nodes by spec.resources.nodeSelector"


def _driver(message: str, spec: RFTJobSpec | None) -> str:
    found = re.search(r"driver name (\S+) not found in the list of registered CSI drivers", message)
    if found is None:
        return ""
    return (
        f"Install the CSI driver {found[1]} on the node, choose other nodes by spec.resources.nodeSelector,"
        f" or correct {claims_or_the_claim(spec)}"
    )


def _folder(message: str, spec: RFTJobSpec | None) -> str:
    found = re.search(r"hostPath type check failed: (\S+)|path \"([^\"]+)\" does not exist", message)
    if found is None:
        return ""
    return (
        f"Create {found[1] or found[2]} on the node, correct the PersistentVolume, or correct"
        f" {claims_or_the_claim(spec)}"
    )


_REMEDIES: tuple[Callable[[str, RFTJobSpec | None], str], ...] = (
    _image,
    _quota,
    _must_specify,
    _limit_range,
    _ratio,
    _missing,
    _pull_secret,
    _key,
    _attached,
    _no_class,
    _security,
    _policy,
    _webhook,
    _ending,
    _invalid,
    _sandbox,
    _driver,
    _folder,
    _placing,
)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def or_correct(text: str, spec: RFTJobSpec | None) -> str:
    """Return the end of a sentence of advice: ", or correct" with the paths of the fields of the spec that
    have the value ``text``. Return "" if no field has this value.
    """
    paths = _paths(text, spec)
    return f", or correct {' or '.join(paths)}" if paths else ""


def _paths(text: str, spec: RFTJobSpec | None) -> list[str]:
    return list(paths_of(spec.dump(), text)) if spec is not None else []


def paths_of(value: Any, wanted: str, path: str = "spec") -> Iterator[str]:
    """Yield the path of each field in ``value`` that is equal to ``wanted``. ``path`` is the path of
    ``value``.
    """
    if isinstance(value, Mapping):
        for name, child in value.items():
            yield from paths_of(child, wanted, f"{path}.{name}")
    elif isinstance(value, list):
        for number, child in enumerate(value):
            yield from paths_of(child, wanted, f"{path}[{number}]")
    elif value == wanted:
        yield path
