"""Tests ``rft submit`` with a real API server."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from rft_cli.main import app
from tests.integration.operator_support import CONFIG_MAPS, RFTJOBS, Api, Object
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster
Submit = Callable[..., Result]


@pytest.fixture
def job(api: Api, manifest: Callable[..., Object]) -> Object:
    """A job and the ConfigMap with its rows. Both are deleted with the namespace."""
    return manifest(suspend=True)


@pytest.fixture
def submit(api: Api, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Submit:
    """Return a function that runs ``rft submit`` in the tests' namespace."""
    # The Kubernetes client reads KUBECONFIG at its import.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))

    def run(*objects: Object, options: tuple[str, ...] = ()) -> Result:
        command = ["submit", "-", "--namespace", api.namespace, *options]
        return CliRunner().invoke(app, command, input=yaml.safe_dump_all(objects))

    return run


def test_all_objects_of_a_file_are_applied_and_a_repetition_changes_nothing(
    api: Api, submit: Submit, job: Object
) -> None:
    name = job["metadata"]["name"]
    rows: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "{}"}}
    dry = submit(rows, job, options=("--dry-run",))
    assert dry.exit_code == 0, dry.output
    assert f"RFTJob {name} created (dry run)" in dry.stdout
    assert api.find(RFTJOBS, name) is None
    first = submit(rows, job)
    assert first.exit_code == 0, first.output
    assert f"ConfigMap {name} created" in first.stdout
    assert f"RFTJob {name} created" in first.stdout
    assert api.get(CONFIG_MAPS, name)["data"] == {"a": "{}"}
    again = submit(rows, job)
    assert f"ConfigMap {name} unchanged" in again.stdout
    job["spec"]["training"] = {"seed": 7}
    assert f"RFTJob {name} configured" in submit(rows, job).stdout
    assert api.get(RFTJOBS, name)["spec"]["training"]["seed"] == 7


def test_fields_of_another_manager_are_kept_unless_forced(api: Api, submit: Submit, job: Object) -> None:
    name = job["metadata"]["name"]
    assert submit(job).exit_code == 0
    api.patch(RFTJOBS, name, {"spec": {"training": {"seed": 3}}})
    job["spec"]["training"] = {"seed": 4}
    refused = submit(job)
    assert refused.exit_code == 1
    assert ".spec.training.seed" in refused.stderr
    assert api.get(RFTJOBS, name)["spec"]["training"]["seed"] == 3
    assert submit(job, options=("--force-conflicts",)).exit_code == 0
    assert api.get(RFTJOBS, name)["spec"]["training"]["seed"] == 4


def test_a_kind_unknown_to_the_cluster_is_named_in_the_error(submit: Submit, job: Object) -> None:
    other: Object = {"apiVersion": "none.dev/v1", "kind": "Thing", "metadata": {"name": "a"}}
    result = submit(other, job)
    assert result.exit_code == 1
    assert "the cluster has no kind Thing of none.dev/v1" in result.stderr


def test_a_submitted_job_can_be_watched_until_its_end(
    api: Api, submit: Submit, manifest: Callable[..., Object], operator: object
) -> None:
    cancelled = manifest(cancel=True)
    result = submit(cancelled, options=("--watch",))
    assert result.exit_code == 1
    assert "Cancelled" in result.stdout
    wait_until(
        "the status has a phase", lambda: api.get(RFTJOBS, cancelled["metadata"]["name"])["status"]["phase"]
    )
