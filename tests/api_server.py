"""A fake API server for tests of commands that use a cluster. The tests set its responses."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

# This import is slow. It is here so that it does not count in the time of the first test.
from kubernetes.client import CoreV1Api, CustomObjectsApi, V1PodList  # noqa: F401

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
    """The fake API server: the objects that it returns, and the requests that it has received.

    ``watches``: a list of events for each watch request, in order. Further watch requests get no events.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.jobs: list[dict[str, Any]] = [job()]
        self.pods: list[dict[str, Any]] = []
        self.watches: list[list[dict[str, Any]]] = []
        self.requests: list[str] = []
        self.failures = 0
        self.refusal, self.refusal_status = "", 403
        self.log = ""
        self.patches: list[tuple[str, dict[str, Any]]] = []


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
            said = self.server.log or f"log of {url.path.split('/')[-2]}, {query['container'][0]}\nlast line"
            self.answer(200, said)
        elif url.path.endswith("/pods"):
            self.answer(200, json.dumps({"kind": "PodList", "items": self.server.pods}))
        elif url.path in (JOBS, "/apis/rft.dev/v1alpha1/rftjobs"):
            self.answer(200, json.dumps({"items": self.server.jobs}))
        else:
            name = url.path.removeprefix(f"{JOBS}/")
            found = next((j for j in self.server.jobs if j["metadata"]["name"] == name), None)
            body = found or {"kind": "Status", "reason": "NotFound", "message": f'rftjobs "{name}" not found'}
            self.answer(200 if found else 404, json.dumps(body))

    def do_PATCH(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.refusal:
            self.answer(
                self.server.refusal_status, json.dumps({"kind": "Status", "message": self.server.refusal})
            )
            return
        self.server.patches.append((self.headers["Content-Type"], body))
        self.server.jobs[0]["spec"] |= body["spec"]
        self.answer(200, json.dumps(self.server.jobs[0]))

    def answer(self, code: int, body: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


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


@contextmanager
def served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Run the server during the ``with`` block. Write a kubeconfig for it into ``folder``."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        path = folder / "kubeconfig"
        path.write_text(kubeconfig(f"http://127.0.0.1:{server.server_port}"))
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        yield server
        server.shutdown()
        thread.join()
