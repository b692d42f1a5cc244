"""Checks the spec of a new RFTJob for values that its schema allows, but that the model hub or Kubernetes
would refuse later.

An RFTJob that the cluster has already stored may have such values, and must stay readable. So these checks
are not in ``validation.check``.
"""

import re
from collections.abc import Callable, Iterator, Mapping

from rft_api.cel import words
from rft_api.job import RFTJobSpec
from rft_api.problems import Problem
from rft_api.resources import OPERATOR_VARIABLES, TRAINER_VARIABLES

Check = Callable[[RFTJobSpec], Iterator[Problem]]

_CLOSED = re.compile(
    r"(chatgpt-|gpt-[345](?![0-9])|o[134](-|$)|claude-|gemini-|grok-[3-9]|text-davinci|davinci-|command-r-plus-0)",
    re.IGNORECASE,
)
_VENDORS = ("", "openai", "anthropic", "google", "xai", "x-ai", "azure", "cohere", "gemini", "vertex_ai")
_HUB_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_LABEL_PART = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_WORDS = "at most 63 letters, digits, dashes, underscores and dots, with a letter or digit at both ends"


def model_is_on_a_hub(spec: RFTJobSpec) -> Iterator[Problem]:
    """Yield a problem if the model's name is neither a hub id nor an absolute path, or names a closed model.

    A closed model is a model whose weights nobody can download.
    """
    if said := model_problem(spec.model.name):
        yield Problem("spec.model.name", said)


def model_problem(name: str) -> str:
    """Return the message for a model's name that is refused, or "" for a name that is allowed.

    Allowed are the hub id of an open model, and an absolute path.
    """
    page = re.match(r"(?:https?://(?:www\.)?)?(?:huggingface\.co|hf\.co)/([^/]+/[^/?#]+)", name)
    owner, _, own = name.rpartition("/")
    if name.startswith("/"):
        return ""
    if page is not None:
        return f"{name!r} is the address of a web page, not a hub id; write {page[1]}"
    if owner.lower() in _VENDORS and _CLOSED.match(own):
        return (
            f"{name!r} is a closed model: there are no weights to download and train; name an open model such"
            " as Qwen/Qwen2.5-7B-Instruct. A closed model can only be the judge of a grader of kind model"
        )
    if not _is_hub_id(name):
        return (
            f"{name!r} is neither a hub id (owner/name, such as Qwen/Qwen2.5-7B-Instruct) nor an absolute"
            f" path, which begins with /; write {_as_model(name)}"
        )
    return ""


def _as_model(name: str) -> str:
    """Return what the user should write instead of an invalid model name.

    It is a corrected hub id, if one can be guessed. Otherwise it is a description of a valid name.
    """
    if name.startswith((".", "~")):
        return "the absolute path of the folder"
    allowed = re.sub(r"[^A-Za-z0-9._/-]+", "-", name)
    parts = [re.sub(r"([-.])[-.]+", r"\1", part).strip("-.") for part in allowed.split("/")]
    own = "/".join(filter(None, parts[-2:]))
    return (
        own
        if "/" in own and _is_hub_id(own)
        else f"the id as the hub shows it, such as owner/{parts[-1] or 'name'}"
    )


def _is_hub_id(name: str) -> bool:
    fits = re.fullmatch(f"{_HUB_PART}(/{_HUB_PART})?", name)
    return fits is not None and "--" not in name and ".." not in name


def revision_is_whole(spec: RFTJobSpec) -> Iterator[Problem]:
    """Yield a problem if the model's revision is a shortened commit hash: the hub needs all 40 characters."""
    revision = spec.model.revision or ""
    shortened = re.fullmatch(r"(?=.*[0-9])(?=.*[a-f])[0-9a-f]{7,39}", revision)
    if shortened and not spec.model.name.startswith("/"):
        yield Problem(
            "spec.model.revision",
            f"{revision!r} is a shortened commit of {len(revision)} characters, which the hub does not know;"
            " write all 40 characters, or a branch or tag",
        )


def memory_is_whole_bytes(spec: RFTJobSpec) -> Iterator[Problem]:
    """Yield a problem for each amount of memory or storage that ends with ``m``.

    In Kubernetes ``m`` means thousandths, so ``512m`` is about half a byte.
    """
    resources = spec.resources
    if resources is None:
        return
    accelerator = resources.accelerator.memory if resources.accelerator is not None else None
    storage = resources.ephemeral_storage
    given = {
        "memory": resources.memory,
        "ephemeralStorage": storage,
        "shm": resources.shm,
        "accelerator.memory": accelerator,
    }
    for field, value in given.items():
        if value is not None and value.endswith("m"):
            yield Problem(
                f"spec.resources.{field}",
                f"{value!r} is {value[:-1]} thousandths of a byte; write {value[:-1]}Mi for mebibytes",
            )


def labels_are_kubernetes_own(spec: RFTJobSpec) -> Iterator[Problem]:
    """Yield a problem for each label, annotation key or node selector label that Kubernetes would refuse."""
    template, resources = spec.template, spec.resources
    if template is not None:
        yield from _labels("spec.template.labels", template.labels or {})
        for key in template.annotations or {}:
            yield from _label_key("spec.template.annotations", key)
    if resources is not None:
        yield from _labels("spec.resources.nodeSelector", resources.node_selector or {})


def _labels(path: str, labels: Mapping[str, str]) -> Iterator[Problem]:
    for key, value in labels.items():
        yield from _label_key(path, key)
        if value and not _LABEL_PART.fullmatch(value):
            meant = re.sub(r"[^-A-Za-z0-9_.]+", "-", value)[:63].strip("-_.")
            yield Problem(
                f"{path}.{key}", f"{value!r} is not a valid label: use {_LABEL_WORDS}; write '{meant}'"
            )


def _label_key(path: str, key: str) -> Iterator[Problem]:
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > 253 or not _SUBDOMAIN.fullmatch(prefix)):
        yield Problem(
            f"{path}.{key}", f"the part before the slash in {key!r} is not a domain such as example.com"
        )
    if not _LABEL_PART.fullmatch(name):
        meant = re.sub(r"[^-A-Za-z0-9_.]+", "-", name)[:63].strip("-_.")
        yield Problem(
            f"{path}.{key}",
            f"{key!r} is not a valid key: use {_LABEL_WORDS}; write {prefix}{slash}{meant or 'name'}",
        )


def mounts_do_not_collide(spec: RFTJobSpec) -> Iterator[Problem]:
    """Yield a problem for each volume of the template whose mount path cannot be used.

    A mount path cannot be used in these cases:

    - It contains a colon or ``..``.
    - Another volume of the template has the same path.
    - The trainer's container needs the folder at this path.
    """
    seen: dict[str, str] = {}
    for i, volume in enumerate((spec.template.volumes if spec.template is not None else None) or []):
        path = f"spec.template.volumes[{i}].mountPath"
        mounted = re.sub("/+", "/", volume.mount_path).rstrip("/")
        if ":" in mounted or ".." in mounted.split("/"):
            yield Problem(path, f"{volume.mount_path!r} contains a colon or .., which Kubernetes refuses")
        elif mounted in seen:
            said = f"{volume.mount_path!r} is also the value of {seen[mounted]}; give each its own path"
            yield Problem(path, said)
        elif mounted in _TAKEN or not mounted:
            yield Problem(
                path,
                f"the trainer needs {volume.mount_path!r}; write another path, such as /mnt/{volume.name}",
            )
        seen.setdefault(mounted, path)


_TAKEN = words(
    "/bin /data/evaluation /data/train /dev /dev/shm /etc /etc/rft /lib /opt /opt/rft /proc /run /runs"
    " /scratch /sys /tmp /usr /var /var/cache/rft /var/run"
)
"""Paths in the trainer's container that belong to its image or to its own volumes."""


def variables_are_not_the_operators(spec: RFTJobSpec) -> Iterator[Problem]:
    """Yield a problem for each environment variable of the template that a job must not set.

    These are the variables that the operator sets itself, in every job or for a field of the spec. They are
    also all other variables whose name begins with ``RFT_``, except ``TRAINER_VARIABLES``.
    """
    fields = _variables_of_fields(spec)
    for i, variable in enumerate((spec.template.env if spec.template is not None else None) or []):
        path, name = f"spec.template.env[{i}].name", variable.name
        if name in OPERATOR_VARIABLES:
            yield Problem(
                path, f"{name} is set by the operator, which ignores this value; remove the variable"
            )
        elif name in fields:
            yield Problem(
                path,
                f"{name} is set by {fields[name]}, so its value has no effect; remove one of them",
            )
        elif name.startswith("RFT_") and name not in TRAINER_VARIABLES:
            yield Problem(
                path,
                f"{name} is reserved: of the names that begin with RFT_ a job may set only"
                f" {', '.join(TRAINER_VARIABLES)}; write {name.removeprefix('RFT_') or 'another name'}",
            )


def _variables_of_fields(spec: RFTJobSpec) -> dict[str, str]:
    """Return the environment variables that the operator sets in the trainer because of fields of the spec.

    The key is the name of the variable, and the value is the path of the field, such as ``spec.model.cache``.
    """
    tracking = spec.tracking
    wandb = tracking.wandb if tracking is not None else None
    mlflow = tracking.mlflow if tracking is not None else None
    found = {
        "HF_TOKEN": ("spec.model.secretRef", spec.model.secret_ref),
        "HF_HUB_CACHE": ("spec.model.cache", spec.model.cache),
        "WANDB_API_KEY": ("spec.tracking.wandb.secretRef", wandb and wandb.secret_ref),
        "MLFLOW_TRACKING_TOKEN": ("spec.tracking.mlflow.secretRef", mlflow and mlflow.secret_ref),
    }
    return {name: path for name, (path, value) in found.items() if value is not None}


def objects_have_names(spec: RFTJobSpec) -> Iterator[Problem]:
    """Yield a problem for each name in the spec that cannot be the name of a Kubernetes object.

    Only names of objects that the spec refers to are checked, such as the name of a ConfigMap.
    """
    for path, name in _references(spec.dump(), "spec"):
        if len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
            parts = re.split(r"[-.]*\.[-.]*", re.sub(r"[^a-z0-9.]+", "-", name.lower()))
            meant = ".".join(filter(None, (part.strip("-") for part in parts)))[:253].rstrip("-.")
            yield Problem(
                path,
                f"{name!r} cannot be the name of an object: use lowercase letters, digits, dashes and dots,"
                f" with a letter or digit at both ends{f'; write {meant}' if meant else ''}",
            )


_NAMED = ("configMap", "secretRef", "secretKeyRef", "configMapKeyRef")
_NAMES = words(
    "claimName priorityClassName resourceClaimName resourceClaimTemplateName runtimeClassName"
    " serviceAccountName storageClassName"
)


def _references(value: object, path: str, parent: str = "") -> Iterator[tuple[str, str]]:
    """Yield one pair for each reference to a Kubernetes object in a spec: its path, and the object's name.

    - ``value``: the spec as a JSON object, or a part of it
    - ``path``: the path of ``value`` in the manifest
    - ``parent``: the last key in ``path``
    """
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from _references(item, f"{path}[{i}]", parent)
    elif isinstance(value, dict):
        for key, item in value.items():
            names = key in _NAMES or (key == "name" and parent in (*_NAMED, "imagePullSecrets"))
            if isinstance(item, str) and (
                names or (parent == "volumes" and key in ("configMap", "persistentVolumeClaim"))
            ):
                yield f"{path}.{key}", item
            elif key != "affinity":
                yield from _references(item, f"{path}.{key}", key)


CHECKS: tuple[Check, ...] = (
    model_is_on_a_hub,
    revision_is_whole,
    memory_is_whole_bytes,
    labels_are_kubernetes_own,
    mounts_do_not_collide,
    variables_are_not_the_operators,
    objects_have_names,
)


def problems(spec: RFTJobSpec) -> list[Problem]:
    """Return the problems that the checks in ``CHECKS`` find in a spec, in the order of the checks."""
    return [problem for check in CHECKS for problem in check(spec)]
