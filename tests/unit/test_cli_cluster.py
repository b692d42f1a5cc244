"""The commands rft get, watch, curve and logs, with a fake API server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from rft_cli.main import app
from tests.api_server import Server, job, kubeconfig, pod, served


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with served(tmp_path, monkeypatch) as server:
        yield server


def rft(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_jobs_are_listed_with_phase_steps_reward_time_left_and_age(server: Server) -> None:
    server.jobs.append({"metadata": {"name": "new", "namespace": "team"}, "spec": {}})
    heading, running, new = rft("get").stdout.splitlines()
    assert heading.split() == ["NAME", "PHASE", "STEPS", "REWARD", "ETA", "AGE"]
    assert running.split()[:5] == ["arithmetic", "Running", "2/4", "0.200", "1m01s"]
    assert new.split() == ["new", "Pending", "-", "-", "-", "-"]


def test_wide_adds_model_and_message(server: Server) -> None:
    result = rft("get", "arithmetic", "-o", "wide")
    assert "Qwen/Qwen2.5-0.5B-Instruct" in result.stdout
    assert "Step 2 of 4" in result.stdout


@pytest.mark.parametrize("output", ["yaml", "json"])
def test_an_object_is_printed_whole_for_machines(server: Server, output: str) -> None:
    assert yaml.safe_load(rft("get", "arithmetic", "-o", output).stdout) == job()


def test_every_namespace_is_listed_with_its_name(server: Server) -> None:
    result = rft("get", "-A")
    assert result.stdout.splitlines()[1].split()[0] == "team"
    assert server.requests == ["/apis/rft.dev/v1alpha1/rftjobs"]


def test_a_job_that_does_not_exist_is_one_line_with_the_namespace(server: Server) -> None:
    result = rft("get", "other")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "RFTJob 'other' does not exist in namespace 'team'" in result.stderr


def test_a_context_that_does_not_exist_names_those_that_do(server: Server) -> None:
    result = rft("get", "--context", "other")
    assert result.exit_code == 2
    assert "it has test" in result.stderr


@pytest.mark.parametrize(
    ("phase", "code"), [("Succeeded", 0), ("Failed", 1), ("Cancelled", 1), ("Invalid", 1)]
)
def test_watching_ends_with_the_job_and_its_verdict(server: Server, phase: str, code: int) -> None:
    server.watches = [
        [{"type": "ADDED", "object": job()}, {"type": "MODIFIED", "object": job(step=3)}],
        # A server may end a watch at any time. The command then starts another watch.
        [{"type": "ADDED", "object": job(step=3)}, {"type": "MODIFIED", "object": job(phase=phase, step=4)}],
    ]
    result = rft("watch", "arithmetic")
    assert result.exit_code == code
    lines = result.stdout.splitlines()
    assert [line.split(",")[0] for line in lines] == ["Running", "Running", phase]
    assert "step 4/4, reward 0.400" in lines[-1]


def test_watching_outlives_a_server_that_is_away_for_a_while(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rft_cli.cluster.client.RETRY_SECONDS", 0.01)
    server.watches = [[{"type": "MODIFIED", "object": job(phase="Succeeded", step=4)}]]
    server.failures = 3
    assert rft("watch", "arithmetic").exit_code == 0


def test_watching_gives_up_on_a_server_that_stays_away(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rft_cli.cluster.client.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("rft_cli.cluster.client.MAX_FAILURES", 2)
    server.failures = 100
    result = rft("watch", "arithmetic")
    assert result.exit_code == 1
    assert "503" in result.stderr
    assert server.failures == 97


def test_watching_quietly_leaves_only_the_exit_code(server: Server) -> None:
    server.jobs = [job(phase="Failed")]
    result = rft("watch", "arithmetic", "--quiet")
    assert (result.exit_code, result.output) == (1, "")


def test_watching_ends_when_the_job_is_deleted(server: Server) -> None:
    server.watches = [[{"type": "DELETED", "object": job()}]]
    result = rft("watch", "arithmetic")
    assert result.exit_code == 1
    assert "was deleted" in result.stderr


def test_the_curve_of_a_job_is_that_of_its_status(server: Server) -> None:
    result = rft("curve", "arithmetic")
    assert result.exit_code == 0
    assert "0.200" in result.stdout
    assert "reward" in result.stdout


def test_the_log_is_that_of_the_newest_pod(server: Server) -> None:
    server.pods = [pod("old", "2020-01-01T00:00:00Z"), pod("new", "2020-01-02T00:00:00Z")]
    assert rft("logs", "arithmetic").stdout == "log of new, trainer\nlast line\n"
    assert rft("logs", "arithmetic", "--container", "grader").stdout.startswith("log of new, grader")
    assert any("labelSelector=job-name%3Darithmetic-12345678" in request for request in server.requests)


def test_a_job_without_a_pod_says_so_with_its_phase(server: Server) -> None:
    result = rft("logs", "arithmetic")
    assert result.exit_code == 1
    assert "has no pod: its phase is Running" in result.stderr


def test_a_server_that_is_away_is_one_line(server: Server, tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text(kubeconfig("http://127.0.0.1:9"))
    result = rft("get")
    assert result.exit_code == 2
    assert "does not answer" in result.stderr
