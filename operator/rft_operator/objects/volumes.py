"""Builds the volumes of the trainer's pod, and the paths where its two containers mount them.

The grader container runs users' code. It mounts only its socket, its configuration, its code and a folder for
temporary files. It has no access to the pod's token, the run's configuration, the rows or the checkpoints.
"""

from dataclasses import dataclass
from typing import Any

from rft_api.job import RFTJobSpec
from rft_api.sources import Dataset
from rft_operator.objects.config import TOKEN_KEY, has_user_code
from rft_operator.objects.names import Owner
from rft_run.config import (
    CA_DIR,
    CACHE_DIR,
    CONFIG_DIR,
    CONFIG_FILE,
    DATASET_DIR,
    EVALUATION_DIR,
    GRADER_CODE_DIR,
    GRADER_CONFIG_DIR,
    GRADER_CONFIG_FILE,
    GRADER_DIR,
    RUNS_DIR,
    SCRATCH_DIR,
    SECRETS_DIR,
    TOKEN_DIR,
)
from rft_run.report import TOKEN_AUDIENCE

TOKEN_SECONDS = 3600
DEFAULT_SHM = "1Gi"
_READ_BY_GROUP = 0o440


@dataclass(frozen=True)
class Mounted:
    """A volume of the trainer's pod, and the path where each container mounts it.

    ``source`` is the volume's entry in the pod's list ``volumes``, without the name. ``trainer`` and
    ``grader`` are the paths in these containers, or ``None`` if the container does not mount the volume.
    """

    name: str
    source: dict[str, Any]
    trainer: str | None = None
    grader: str | None = None
    read_only: bool = False

    @property
    def volume(self) -> dict[str, Any]:
        """The volume as an entry of the list ``volumes`` in a pod's spec."""
        return {"name": self.name, **self.source}

    def mount(self, path: str) -> dict[str, Any]:
        """Return an entry of a container's list ``volumeMounts``, which mounts this volume at ``path``."""
        mount: dict[str, Any] = {"name": self.name, "mountPath": path}
        if self.read_only:
            mount["readOnly"] = True
        return mount


def volumes(owner: Owner, spec: RFTJobSpec, *, reports: bool) -> list[Mounted]:
    """Return all volumes of the trainer's pod. ``reports``: whether the trainer can send reports to the
    operator. If it can, the pod's token and the CA certificates are mounted too.
    """
    found = [
        _config(owner),
        _runs(owner, spec),
        _empty("trainer-tmp", trainer="/tmp"),  # noqa: S108 - a volume of its own
        _empty("scratch", trainer=SCRATCH_DIR),
        _shared_memory(spec),
        *_cache(owner, spec),
        *_dataset("dataset", spec.dataset, DATASET_DIR),
        *_secrets(spec),
        *_extra(spec),
    ]
    if spec.evaluation.dataset is not None:
        found += _dataset("evaluation", spec.evaluation.dataset, EVALUATION_DIR)
    if reports:
        found += [_token(), _ca(owner)]
    if has_user_code(spec):
        found += [
            _empty("grader-socket", trainer=GRADER_DIR, grader=GRADER_DIR),
            _empty("grader-tmp", grader="/tmp"),  # noqa: S108 - a volume of its own
            _grader_config(owner),
            *_grader_code(spec),
        ]
    return found


def _empty(name: str, *, trainer: str | None = None, grader: str | None = None) -> Mounted:
    return Mounted(name, {"emptyDir": {}}, trainer=trainer, grader=grader)


def _config(owner: Owner) -> Mounted:
    items = [{"key": CONFIG_FILE, "path": CONFIG_FILE}]
    source = {"configMap": {"name": owner.child, "items": items}}
    return Mounted("config", source, trainer=CONFIG_DIR, read_only=True)


def _grader_config(owner: Owner) -> Mounted:
    items = [{"key": GRADER_CONFIG_FILE, "path": GRADER_CONFIG_FILE}]
    source = {"configMap": {"name": owner.child, "items": items}}
    return Mounted("grader-config", source, grader=GRADER_CONFIG_DIR, read_only=True)


def _runs(owner: Owner, spec: RFTJobSpec) -> Mounted:
    storage = spec.storage
    if storage.persistent_volume_claim is not None:
        return Mounted("runs", _claim(storage.persistent_volume_claim.claim_name), trainer=RUNS_DIR)
    if storage.claim_template is not None:
        return Mounted("runs", _claim(owner.child), trainer=RUNS_DIR)
    return _empty("runs", trainer=RUNS_DIR)


def _cache(owner: Owner, spec: RFTJobSpec) -> list[Mounted]:
    """Return the volume for downloaded models in a list, which is empty if the spec has no ``model.cache``.
    Only the trainer container mounts the volume.
    """
    cache = spec.model.cache
    if cache is None:
        return []
    shared = cache.persistent_volume_claim
    return [Mounted("hub", _claim(shared.claim_name if shared else owner.cache), trainer=CACHE_DIR)]


def _claim(name: str) -> dict[str, Any]:
    return {"persistentVolumeClaim": {"claimName": name}}


def _shared_memory(spec: RFTJobSpec) -> Mounted:
    size = (spec.resources.shm if spec.resources is not None else None) or DEFAULT_SHM
    return Mounted(
        "shm",
        {"emptyDir": {"medium": "Memory", "sizeLimit": size}},
        trainer="/dev/shm",  # noqa: S108 - a volume of its own
    )


def _token() -> Mounted:
    # The token is bound to the pod, and its audience is the operator's server for reports. The API server
    # does not accept it as a credential: it answers 401.
    source = {
        "projected": {
            "defaultMode": _READ_BY_GROUP,
            "sources": [
                {
                    "serviceAccountToken": {
                        "audience": TOKEN_AUDIENCE,
                        "expirationSeconds": TOKEN_SECONDS,
                        "path": TOKEN_KEY,
                    }
                }
            ],
        }
    }
    return Mounted("token", source, trainer=TOKEN_DIR, read_only=True)


def _ca(owner: Owner) -> Mounted:
    # The whole volume is mounted, because the kubelet does not update a file that is mounted by subPath.
    return Mounted("ca", {"configMap": {"name": owner.ca}}, trainer=CA_DIR, read_only=True)


def _dataset(name: str, dataset: Dataset, path: str) -> list[Mounted]:
    if dataset.config_map is not None:
        source: dict[str, Any] = {"configMap": {"name": dataset.config_map.name}}
    elif dataset.persistent_volume_claim is not None:
        source = _claim(dataset.persistent_volume_claim.claim_name)
    else:
        return []
    return [Mounted(name, source, trainer=path, read_only=True)]


def _secrets(spec: RFTJobSpec) -> list[Mounted]:
    """Return a volume for each http grader and each model grader that has a Secret. The trainer reads the
    Secret's value from the file ``SECRETS_DIR/<name of the grader>/<key of the Secret>``.
    """
    found = []
    for i, grader in enumerate(spec.graders):
        kind = grader.http or grader.model
        if kind is None or kind.secret_ref is None:
            continue
        ref = kind.secret_ref
        items = [{"key": ref.key, "path": ref.key}]
        source = {"secret": {"secretName": ref.name, "items": items, "defaultMode": _READ_BY_GROUP}}
        path = f"{SECRETS_DIR}/{grader.name}"
        found.append(Mounted(f"secret-{i}", source, trainer=path, read_only=True))
    return found


def _grader_code(spec: RFTJobSpec) -> list[Mounted]:
    """Return a volume for each grader or environment whose Python code is in a ConfigMap of the user.

    Both containers mount it. The grader container runs the code. The trainer only reads the code, to notice
    changes between the attempts of a run.
    """
    found = []
    for i, grader in enumerate(spec.scored_by):
        if grader.python is None or grader.python.config_map is None:
            continue
        code = grader.python.config_map
        # All keys of the ConfigMap are mounted, because the grader's file may import the others.
        source = {"configMap": {"name": code.name}}
        path = f"{GRADER_CODE_DIR}/{grader.name}"
        found.append(Mounted(f"code-{i}", source, trainer=path, grader=path, read_only=True))
    return found


def _extra(spec: RFTJobSpec) -> list[Mounted]:
    found = []
    for volume in (spec.template.volumes if spec.template is not None else None) or []:
        source = (
            _claim(volume.persistent_volume_claim)
            if volume.persistent_volume_claim is not None
            else {"configMap": {"name": volume.config_map}}
        )
        # The prefix keeps users' volume names from colliding with the operator's.
        found.append(Mounted(f"extra-{volume.name}", source, trainer=volume.mount_path, read_only=True))
    return found
