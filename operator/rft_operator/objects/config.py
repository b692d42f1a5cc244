"""Builds three manifests for an RFTJob: the immutable ConfigMap with the run's configuration, the ConfigMap
with the CA certificates that the trainer trusts, and a PersistentVolumeClaim.
"""

import json
from typing import Any

from rft_api.defaults import NO_DEFAULTS, JobDefaults
from rft_api.job import RFTJobSpec
from rft_api.sources import ClaimTemplate
from rft_api.status import Plan
from rft_operator.objects.names import Owner
from rft_run.config import (
    CA_DIR,
    CONFIG_FILE,
    DATASET_DIR,
    EVALUATION_DIR,
    GRADER_CODE_DIR,
    GRADER_CONFIG_FILE,
    GRADER_SOCKET,
    RUNS_DIR,
    SCRATCH_DIR,
    TOKEN_DIR,
    JobIdentity,
    ReportTarget,
    RunConfig,
    dataset_path,
    grader_config,
)
from rft_run.report import REPORT_PATH

CA_KEY = "ca.crt"
TOKEN_KEY = "token"


def has_user_code(spec: RFTJobSpec) -> bool:
    """Return whether a grader or the environment of the RFTJob is Python code of the user. Then the trainer's
    pod needs a second container, the grader container, which runs this code.
    """
    return any(grader.python is not None for grader in spec.scored_by)


def run_config(
    owner: Owner,
    spec: RFTJobSpec,
    plan: Plan,
    ingest_url: str | None,
    defaults: JobDefaults = NO_DEFAULTS,
) -> RunConfig:
    """Return the configuration with which the trainer runs, for the RFTJob ``owner``.

    - ``spec``: the spec as the user wrote it.
    - ``ingest_url``: the base URL of the operator's server for reports, or ``None`` if the trainer cannot
      send reports.
    - ``defaults``: the platform's defaults. The configuration stores them, so that later changes of these
      defaults do not change this run.

    Raises ValueError if the plan has no effective parameters (the parameters with all defaults filled in).
    """
    if plan.effective is None:
        raise ValueError("the plan has no effective parameters, so the run cannot be configured")
    code = {
        grader.name: f"{GRADER_CODE_DIR}/{grader.name}/{grader.python.config_map.key}"
        for grader in spec.scored_by
        if grader.python is not None and grader.python.config_map is not None
    }
    evaluation = spec.evaluation.dataset
    # Only values other than None are passed: these fields of RunConfig may be absent, but not null.
    optional: dict[str, Any] = {
        "evaluation_path": dataset_path(evaluation, EVALUATION_DIR) if evaluation is not None else None,
        "grader_code": code or None,
        "grader_socket": GRADER_SOCKET if has_user_code(spec) else None,
        "report": _report_target(ingest_url) if ingest_url else None,
        "defaults": defaults if defaults != NO_DEFAULTS else None,
    }
    return RunConfig(
        job=JobIdentity(name=owner.name, namespace=owner.namespace, uid=owner.uid),
        spec=spec,
        effective=plan.effective.model_copy(update={"inherited": None}),
        plan=plan,
        device=plan.device,
        gpus=plan.gpus,
        run_dir=f"{RUNS_DIR}/{owner.folder}",
        dataset_path=dataset_path(spec.dataset, DATASET_DIR),
        scratch_dir=SCRATCH_DIR,
        **{name: value for name, value in optional.items() if value is not None},
    )


def _report_target(ingest_url: str) -> ReportTarget:
    return ReportTarget(
        url=f"{ingest_url}{REPORT_PATH}",
        ca_file=f"{CA_DIR}/{CA_KEY}",
        token_file=f"{TOKEN_DIR}/{TOKEN_KEY}",
    )


def config_map(owner: Owner, run: RunConfig) -> dict[str, Any]:
    """Return the manifest of the ConfigMap with the configuration ``run`` as JSON. If the run has Python code
    of the user, a second key has the configuration of the grader container.
    """
    data = {CONFIG_FILE: _json(run.dump())}
    if has_user_code(run.spec):
        data[GRADER_CONFIG_FILE] = _json(grader_config(run.spec, run.grader_code or {}).dump())
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": owner.metadata(owner.child),
        "immutable": True,
        "data": data,
    }


def ca_config_map(owner: Owner, bundle: str) -> dict[str, Any]:
    """Return the manifest of the ConfigMap with the CA certificates that the trainer trusts when it sends
    reports. ``bundle`` is the certificates as PEM text.

    The ConfigMap is not immutable, because CAs are replaced.
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": owner.metadata(owner.ca),
        "data": {CA_KEY: bundle},
    }


def claim(owner: Owner, template: ClaimTemplate, name: str | None = None) -> dict[str, Any]:
    """Return the manifest of a PersistentVolumeClaim for the RFTJob ``owner``. Without a ``name``, the claim
    gets the name of the claim for the run's folder.

    If ``template.retain`` is true, the claim has no owner reference. Then Kubernetes keeps the claim when the
    RFTJob is deleted.
    """
    spec: dict[str, Any] = {
        "accessModes": list(template.access_modes or ["ReadWriteOnce"]),
        "resources": {"requests": {"storage": template.size}},
    }
    if template.storage_class_name is not None:
        spec["storageClassName"] = template.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": owner.metadata(name or owner.child, owned=not template.retain),
        "spec": spec,
    }


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
