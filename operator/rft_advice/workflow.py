"""Advice rules for a job as a whole: number of changes, tracking, storage, evaluation and hardware."""

import re
from collections.abc import Iterator
from typing import Any

from rft_advice import bands
from rft_advice.guide import NINE, value_of
from rft_advice.rule import AdviceRule
from rft_advice.training import model_size
from rft_api.job import RFTJobSpec
from rft_run.secret_forms import without_credentials

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
CPU = "cpu"
"""The value of ``spec.resources.accelerator.name`` that means a run without a GPU."""


def changed_parameters(spec: RFTJobSpec) -> list[str]:
    """Return the names of the parameters that differ from their defaults in ``spec``, such as ``loraRank``.
    Only the nine parameters of the tuning guide, which are in ``NINE``, are compared.
    """
    return [
        guide.path.rpartition(".")[2] for guide in NINE if value_of(spec, guide.path) != guide.field.default
    ]


def many_changes(spec: RFTJobSpec) -> str | None:
    """Return advice to change one parameter at a time if many of the nine parameters in ``NINE``, such as the
    learning rate, differ from their defaults. Else return None.

    After many changes nobody can tell which of them made the difference.
    """
    changed = changed_parameters(spec)
    if len(changed) < bands.MANY_CHANGES:
        return None
    return (
        f"{len(changed)} of the nine parameters differ from their defaults ({', '.join(changed)}): run a"
        " baseline first, then change one at a time and compare (rft suggest writes such manifests)"
    )


def tracking_without_backend(spec: RFTJobSpec) -> str | None:
    """Return advice to add a tracking backend, such as wandb, if ``spec.tracking`` is set but names no
    backend. Else return None.
    """
    if spec.tracking is None or spec.tracking.model_fields_set:
        return None
    return "names no backend, so nothing is logged that could compare runs; add wandb, mlflow or tensorboard"


def storage_ephemeral(spec: RFTJobSpec) -> str | None:
    """Return advice to use a PersistentVolumeClaim if the storage is ephemeral, because the run's files are
    then lost with the pod. Else return None.
    """
    if spec.storage.ephemeral is None:
        return None
    return (
        "the run's folder is lost with the pod: adapter, checkpoints, metrics.jsonl and recorded rollouts. A"
        " retry starts from step 0, and the run cannot be suspended; to keep the folder, use a claim"
    )


def password_in_address(spec: RFTJobSpec) -> str | None:
    """Return advice to use a Secret if an address in the spec, such as a grader's URL, contains a password or
    a key. Else return None.
    """
    texts = _texts(spec.model_dump(mode="json", by_alias=True, exclude_none=True))
    addresses = ((path, text) for path, text in texts if _ADDRESS.fullmatch(text))
    found = [path for path, text in addresses if without_credentials(text) != text]
    if not found:
        return None
    return (
        f"the address in {', '.join(found)} contains a password or key. Everyone who can read the RFTJob or"
        " the folder of the run can see it; leave it out, and name a Secret with the credential by secretRef"
    )


def _texts(value: Any, path: str = "spec") -> Iterator[tuple[str, str]]:
    """Yield the path and the value of every text inside ``value``, a part of a spec as JSON. ``path`` is the
    path of ``value``.
    """
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _texts(inner, f"{path}[{i}]")


def gpus_against_accelerator(spec: RFTJobSpec) -> str | None:
    """Return a message if ``resources.gpus`` and ``accelerator.name`` contradict each other, for example 0
    GPUs and the name of a GPU. Else return None.
    """
    resources = spec.resources
    kind = resources.accelerator.name if resources and resources.accelerator else None
    if resources is None or resources.gpus is None or kind is None:
        return None
    if (kind == CPU) == (resources.gpus == 0):
        return None
    return (
        f"{resources.gpus} is used although accelerator.name is {kind}; change one of the two fields, or"
        " leave gpus out, and the plan chooses the number"
    )


def cpu_for_large_model(spec: RFTJobSpec) -> str | None:
    """Return advice to use GPUs if a large model is to be trained on the CPU, which is too slow. Else return
    None.
    """
    size = model_size(spec)
    if spec.resources is None or spec.resources.gpus != 0 or size is None or size < bands.CPU_MODEL:
        return None
    return (
        f"0 trains {size / 1e9:g}B parameters on the CPU: each step takes minutes or more; leave gpus"
        " out, so that the plan chooses the number of GPUs"
    )


def evaluation_off(spec: RFTJobSpec) -> str | None:
    """Return advice to hold rows out for the evaluation if ``evaluation.fraction`` is 0 and no evaluation
    dataset is set. Else return None.
    """
    if not spec.evaluation.is_off:
        return None
    return (
        "0 turns the held-out evaluation off. Then only the reward of training rows is measured, base and"
        " tuned model are not compared, and no checkpoint can be chosen as the best. With 64 rows or more,"
        " leave fraction out"
    )


def stop_never_applies(spec: RFTJobSpec) -> str | None:
    """Return advice to set ``evaluation.everySteps`` if it is absent and a stop rule depends on the held-out
    reward. Else return None.

    Without ``evaluation.everySteps`` the policy is evaluated only at the start and at the end, so the stop
    rule can never end the run.
    """
    stop = spec.stop
    if stop is None or spec.evaluation.is_off or spec.evaluation.every_steps is not None:
        return None
    named = [
        name
        for name, value in (("targetReward", stop.target_reward), ("patience", stop.patience))
        if value is not None
    ]
    if not named:
        return None
    return (
        f"is not set, so the policy is evaluated only before the first step and after the last one, and"
        f" stop.{' and stop.'.join(named)} can never end the run; set it, for instance to"
        f" {bands.EVERY_STEPS}"
    )


RULES: tuple[AdviceRule, ...] = (
    AdviceRule(
        "many-changes",
        ("spec", *(guide.path for guide in NINE)),
        ("Overview", "Start with Defaults", "One Change at a Time"),
        f"{bands.MANY_CHANGES} or more of the nine parameters differ from their defaults",
        "The defaults suit most runs. Run a baseline, then change one parameter at a time, and only for a"
        " reason.",
        many_changes,
    ),
    AdviceRule(
        "tracking-without-backend",
        ("spec.tracking",),
        ("Track Everything",),
        "tracking is set and names no backend",
        "Log curves and parameters of every run, so that runs can be compared.",
        tracking_without_backend,
    ),
    AdviceRule(
        "storage-ephemeral",
        ("spec.storage.ephemeral",),
        (),
        "storage is ephemeral",
        "Files on the pod's own disk are lost with the pod.",
        storage_ephemeral,
    ),
    AdviceRule(
        "password-in-address",
        ("spec",),
        (),
        "an address in the spec contains a password or a key, as in `https://user:password@host`",
        "Credentials belong in a Secret. Everyone who can read an RFTJob sees its spec.",
        password_in_address,
    ),
    AdviceRule(
        "evaluation-off",
        ("spec.evaluation.fraction",),
        (),
        "evaluation.fraction is 0 and there is no evaluation dataset",
        "Without held-out rows nothing shows whether the policy learned the task or its training rows.",
        evaluation_off,
    ),
    AdviceRule(
        "stop-never-applies",
        ("spec.evaluation.everySteps", "spec.stop.targetReward", "spec.stop.patience"),
        (),
        "stop.targetReward or stop.patience is set, and evaluation.everySteps is not",
        "Stop rules that read the held-out reward need evaluations during the run.",
        stop_never_applies,
    ),
    AdviceRule(
        "gpus-against-accelerator",
        ("spec.resources.gpus", "spec.resources.accelerator.name"),
        (),
        "gpus is 0 and the accelerator is a GPU, or gpus is above 0 and the accelerator is cpu",
        "The number of GPUs in the spec is used, even if it contradicts the accelerator.",
        gpus_against_accelerator,
    ),
    AdviceRule(
        "cpu-for-large-model",
        ("spec.resources.gpus", "spec.model.parameters"),
        (),
        f"gpus is 0 and the model has {bands.CPU_MODEL / 1e9:g}B parameters or more",
        "Training on the CPU is for small models.",
        cpu_for_large_model,
    ),
)
