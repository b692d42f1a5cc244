"""Checks for Argo CD and Flux judge every phase as documented. The Kustomize base is the rendered chart."""

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import yaml

from rft_api.conditions import ACCEPTED, Phase, planned_by
from rft_operator.status import Summary, decided
from tests.cluster.layout import default_layout

ROOT = Path(__file__).parents[2]
GITOPS = ROOT / "charts" / "gitops"
NOW = datetime(2026, 11, 29, 19, 0, tzinfo=UTC)
PHASES: tuple[Phase, ...] = get_args(Phase)
Json = dict[str, Any]


class Health(NamedTuple):
    """The health of an RFTJob as Argo CD and Flux report it.

    The repository has two health checks for Argo CD and two for Flux. The usual one calls an RFTJob healthy
    while it trains. The other one (``at_the_end``) calls it healthy only after it has succeeded.
    """

    argo: str
    argo_at_the_end: str
    flux: str
    flux_at_the_end: str


BEGINS = Health("Progressing", "Progressing", "InProgress", "InProgress")
WANTED: dict[Phase, Health] = {
    "Pending": BEGINS,
    "Queued": BEGINS,
    "Starting": BEGINS,
    "Running": Health("Healthy", "Progressing", "Current", "InProgress"),
    "Suspended": Health("Suspended", "Suspended", "Current", "InProgress"),
    "Invalid": Health("Degraded", "Degraded", "Failed", "Failed"),
    "Succeeded": Health("Healthy", "Healthy", "Current", "Current"),
    "Failed": Health("Degraded", "Degraded", "Failed", "Failed"),
    "Cancelled": Health("Suspended", "Suspended", "Current", "Failed"),
}


def job(phase: Phase, *, stalled: bool = False, generation: int = 1) -> Json:
    """Return an RFTJob of this generation, with the status that the operator wrote for generation 1."""
    summary = Summary(phase, "AReason", "a message", ACCEPTED, planned_by([]), stalled=stalled)
    status = decided(summary, {}, 1, NOW)
    conditions = [condition.dump() for condition in status["conditions"]]
    return {
        "metadata": {"name": "job", "generation": generation},
        "status": {"phase": phase, "observedGeneration": 1, "conditions": conditions},
    }


def new_job() -> Json:
    """Return an RFTJob that the operator has not looked at yet, as the API server stores it."""
    return {"metadata": {"name": "job", "generation": 1}, "status": {"observedGeneration": -1}}


def argo(document: Json, *, at_the_end: bool = False) -> tuple[str, str]:
    """Run the Lua script of Argo CD's health check. Return the health and the message.

    With ``at_the_end``, an RFTJob that trains is not yet healthy.
    """
    lupa = pytest.importorskip("lupa", reason="no Lua: pip install lupa")
    script = (GITOPS / "argocd" / "health.lua").read_text(encoding="utf-8")
    if at_the_end:
        script = script.replace("wait_for_end = false", "wait_for_end = true")
    lua = lupa.LuaRuntime(unpack_returned_tuples=True)
    judged = lua.eval(f"function(obj) {script} end")(lua.table_from(document, recursive=True))
    return str(judged.status), str(judged.message)


def flux(document: Json, name: str) -> str:
    """Return the state of an RFTJob that Flux computes with the expressions in the file ``name``.

    The expressions are tried in the same order as in Flux.
    """
    celpy = pytest.importorskip("celpy", reason="no CEL: pip install cel-python")
    (check,) = yaml.safe_load((GITOPS / "flux" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert (check["apiVersion"], check["kind"]) == ("rft.dev/v1alpha1", "RFTJob")
    environment = celpy.Environment()
    fields = {name: celpy.json_to_cel(value) for name, value in document.items()}
    for key, state in (("inProgress", "InProgress"), ("failed", "Failed"), ("current", "Current")):
        if environment.program(environment.compile(check[key])).evaluate(fields):
            return state
    return "InProgress"


@pytest.mark.parametrize("phase", PHASES)
def test_argo_cd_judges_each_phase_as_documented(phase: Phase) -> None:
    found = argo(job(phase))[0], argo(job(phase), at_the_end=True)[0]
    assert found == (WANTED[phase].argo, WANTED[phase].argo_at_the_end)


@pytest.mark.parametrize("phase", PHASES)
def test_flux_judges_each_phase_as_documented(phase: Phase) -> None:
    assert flux(job(phase), "running") == WANTED[phase].flux
    assert flux(job(phase), "ended") == WANTED[phase].flux_at_the_end


def test_a_stalled_run_and_one_that_nobody_has_looked_at_are_not_healthy() -> None:
    assert argo(job("Running", stalled=True)) == ("Degraded", "AReason: a message")
    assert flux(job("Running", stalled=True), "running") == "Failed"
    for unseen in (new_job(), job("Succeeded", generation=2)):
        assert argo(unseen)[0] == "Progressing"
        assert {flux(unseen, "running"), flux(unseen, "ended")} == {"InProgress"}


def test_the_base_is_the_chart_with_its_default_values() -> None:
    tools = default_layout().tools
    if shutil.which("helm") is None and shutil.which("helm", path=tools) is None:
        pytest.skip("no helm: `python3 -m tests.cluster tools` downloads it")
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:{tools}"}
    program = [str(ROOT / "scripts" / "kustomize.sh"), "--check"]
    done = subprocess.run(program, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, f"run make kustomize\n{done.stdout}{done.stderr}"


def test_the_base_names_files_that_exist_and_holds_no_secret() -> None:
    base = GITOPS / "base"
    for name in yaml.safe_load((base / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]:
        assert (base / name).exists(), name
    rendered = (base / "operator.yaml").read_text(encoding="utf-8")
    kinds = [document["kind"] for document in yaml.safe_load_all(rendered)]
    assert "Secret" not in kinds
    assert kinds.count("Deployment") == 2
