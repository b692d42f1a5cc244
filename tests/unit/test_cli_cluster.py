"""rft get, watch, curve and logs, against an API server that answers from a script."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from kubernetes.client import CoreV1Api, CustomObjectsApi, V1PodList  # noqa: F401 - slow, and not what is timed
from typer.testing import CliRunner, Result

from rft_cli.main import app

JOBS = "/apis/rft.dev/v1alpha1/namespaces/team/rftjobs"


def job(name: str = "arithmetic", phase: str = "Running", step: int = 2) -> dict[str, Any]:
    history = [{"step": i, "reward": i / 10} for i in range(1, step + 1)]
    return {
        "apiVersion": "rft.dev/v1alpha1",
        "kind": "RFTJob",
        "metadata": {"name": name, "namespace": "team", "creationTimestamp": "2020-01-01T00:00:00Z"},
        "spec": {"model": {"name": "Qwen/Qwen2.5-0.5B-Instruct"}},
        "status": {
            "phase": phase,
            "jobName": f"{name}-12345678",
            "message": f"Step {step} of 4",
            "progress": {"step": step, "totalSteps": 4, "totalStepsEstimated": False, "etaSeconds": 61},
            "reward": {"latest": step / 10, "best": step / 10, "history": history},
            "plan": {"gpus": 1},
        },
    }


def pod(name: str, created: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "creationTimestamp": created}}


class Server(ThreadingHTTPServer):
    """Answers by path; every watch request sends the next of ``watches``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.jobs: list[dict[str, Any]] = [job()]
        self.pods: list[dict[str, Any]] = []
        self.watches: list[list[dict[str, Any]]] = []
        self.requests: list[str] = []
        self.failures = 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        self.server.requests.append(self.path)
        if "watch" in query:
            if self.server.failures:
                self.server.failures -= 1
                self.answer(503, "not now")
                return
            events = self.server.watches.pop(0) if self.server.watches else []
            self.server.jobs = [event["object"] for event in events][-1:] or self.server.jobs
            self.answer(200, "".join(json.dumps(event) + "\n" for event in events))
        elif url.path.endswith("/log"):
            self.answer(200, f"log of {url.path.split('/')[-2]}, {query['container'][0]}\nlast line")
        elif url.path.endswith("/pods"):
            self.answer(200, json.dumps({"kind": "PodList", "items": self.server.pods}))
        elif url.path in (JOBS, "/apis/rft.dev/v1alpha1/rftjobs"):
            self.answer(200, json.dumps({"items": self.server.jobs}))
        else:
            name = url.path.removeprefix(f"{JOBS}/")
            found = next((j for j in self.server.jobs if j["metadata"]["name"] == name), None)
            body = found or {"kind": "Status", "reason": "NotFound", "message": f'rftjobs "{name}" not found'}
            self.answer(200 if found else 404, json.dumps(body))

    def answer(self, code: int, body: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        path = tmp_path / "kubeconfig"
        path.write_text(kubeconfig(f"http://127.0.0.1:{server.server_port}"))
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        yield server
        server.shutdown()
        thread.join()


def kubeconfig(address: str) -> str:
    context = {"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "team"}}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": address}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [context],
        }
    )


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
    assert "'other' is not in the kubeconfig; it has test" in result.stderr


@pytest.mark.parametrize(("phase", "code"), [("Succeeded", 0), ("Failed", 1), ("Cancelled", 1)])
def test_watching_ends_with_the_job_and_its_verdict(server: Server, phase: str, code: int) -> None:
    server.watches = [
        [{"type": "ADDED", "object": job()}, {"type": "MODIFIED", "object": job(step=3)}],
        # A server ends watches when it likes: the next one goes on.
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
    monkeypatch.setattr("rft_cli.cluster.RETRY_SECONDS", 0.01)
    server.watches = [[{"type": "MODIFIED", "object": job(phase="Succeeded", step=4)}]]
    server.failures = 3
    assert rft("watch", "arithmetic").exit_code == 0


def test_watching_gives_up_on_a_server_that_stays_away(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rft_cli.cluster.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("rft_cli.cluster.MAX_FAILURES", 2)
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
