"""rft serve prints objects for a cluster, or runs a server on this machine.

A small program replaces vLLM.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from rft_cli.cluster.serving import server_objects
from rft_cli.commands import serve
from rft_cli.errors import UserError
from rft_cli.local.brought import write_records
from rft_cli.main import app
from tests.ports import free_port
from tests.unit.checkpoint_support import write_adapter
from tests.unit.pod_support import PodServer, child_job, finished_job, pods_served
from tests.waiting import wait_until


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PodServer]:
    monkeypatch.chdir(tmp_path)
    with pods_served(tmp_path, tmp_path, monkeypatch) as server:
        yield server


def rft(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def complete_child() -> dict[str, Any]:
    """Return a child Job with the volumes and variables that the operator gives it."""
    child = child_job()
    pod = child["spec"]["template"]["spec"]
    pod["volumes"] = [
        {"name": name, "emptyDir": {}}
        for name in ("config", "runs", "trainer-tmp", "scratch", "shm", "token", "dataset")
    ]
    [container] = pod["containers"]
    container["volumeMounts"] = [
        {"name": volume["name"], "mountPath": f"/{volume['name']}"} for volume in pod["volumes"]
    ]
    container["env"] = [
        {"name": "HOME", "value": "/scratch"}, {"name": "WANDB_API_KEY", "value": "secret"},
        {"name": "RFT_POD_UID", "value": "uid"},
    ]  # fmt: skip
    container["resources"] = {
        "requests": {"cpu": "4", "memory": "8Gi"}, "limits": {"memory": "8Gi", "nvidia.com/gpu": "4"},
    }  # fmt: skip
    return child


def test_the_objects_of_a_job_have_its_image_and_no_rights_rows_or_secrets() -> None:
    service, deployment = server_objects(
        finished_job(), complete_child(), ["python", "-m", "x"], 1, "nvidia.com/gpu"
    )
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["image"] == "registry/trainer:1"
    assert container["securityContext"] == {"runAsUser": 10001}
    assert pod["securityContext"] == {"fsGroup": 10000}
    assert pod["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod
    assert [variable["name"] for variable in container["env"]] == ["HOME"]
    assert {volume["name"] for volume in pod["volumes"]} == {"runs", "trainer-tmp", "scratch", "shm"}
    assert container["volumeMounts"][0] == {
        "name": "runs", "mountPath": "/folder", "subPath": "team/sums-12345678", "readOnly": True,
    }  # fmt: skip
    assert container["resources"]["limits"] == {"memory": "8Gi", "nvidia.com/gpu": "1"}
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    assert [each["metadata"]["ownerReferences"][0]["name"] for each in (deployment, service)] == ["sums"] * 2
    assert deployment["spec"]["progressDeadlineSeconds"] == 3600, (
        "a large model takes longer than ten minutes"
    )


def server_pod(child: dict[str, Any], job: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the pod's spec of a server with 1 GPU."""
    objects = server_objects(job or finished_job(), child, [], 1, "nvidia.com/gpu")
    deployment = next(each for each in objects if each["kind"] == "Deployment")
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def test_the_server_gets_the_jobs_claims_and_keeps_resources_that_count_no_gpus() -> None:
    child = complete_child()
    claims = [{"name": "gpus", "resourceClaimTemplateName": "two-gpus"}]
    trainer = child["spec"]["template"]["spec"]
    trainer["resourceClaims"] = claims
    trainer["containers"][0]["resources"] |= {
        "limits": {"memory": "8Gi", "example.com/fast-network": "2"}, "claims": [{"name": "gpus"}],
    }  # fmt: skip
    pod = server_pod(child)
    assert pod["resourceClaims"] == claims
    resources = pod["containers"][0]["resources"]
    assert resources["claims"] == [{"name": "gpus"}]
    assert resources["limits"] == {"memory": "8Gi", "example.com/fast-network": "2"}


def test_the_server_reaches_the_hub_as_the_trainer_does_and_has_no_key_of_a_tracker() -> None:
    child = complete_child()
    kept = ["HF_TOKEN", "HF_ENDPOINT", "HTTPS_PROXY", "no_proxy", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"]
    names = [*kept, "WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN", "SELF_HF_TOKEN"]
    [container] = child["spec"]["template"]["spec"]["containers"]
    container["env"] = [{"name": name, "value": "x"} for name in names]
    assert [variable["name"] for variable in server_pod(child)["containers"][0]["env"]] == kept


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("/models/base", {"name": "extra-models", "mountPath": "/models"}),
        ("/runs/team/other/merged", {"name": "runs", "mountPath": "/runs/team/other/merged",
                                     "subPath": "team/other/merged"}),
        ("/models-of-others/base", None),
        ("org/model", None),
    ],
)  # fmt: skip
def test_a_base_model_on_a_volume_is_mounted_read_only(model: str, expected: dict[str, Any] | None) -> None:
    child, job = complete_child(), finished_job()
    trainer = child["spec"]["template"]["spec"]
    trainer["volumes"].append({"name": "extra-models", "persistentVolumeClaim": {"claimName": "models"}})
    mounts = trainer["containers"][0]["volumeMounts"]
    mounts.append({"name": "extra-models", "mountPath": "/models", "readOnly": True})
    before = server_pod(child, job)
    job["spec"]["model"]["name"] = model
    pod = server_pod(child, job)
    added = [each for each in pod["containers"][0]["volumeMounts"]
             if each not in before["containers"][0]["volumeMounts"]]  # fmt: skip
    assert added == ([] if expected is None else [{**expected, "readOnly": True}])
    names = [volume["name"] for volume in pod["volumes"]]
    assert len(names) == len(set(names))
    assert {each["name"] for each in added} <= set(names)


def test_the_server_has_the_jobs_terms_on_nodes_and_none_on_pods() -> None:
    child = complete_child()
    terms = [{"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}]
    nodes = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    apart = {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/os"}]}
    child["spec"]["template"]["spec"]["affinity"] = {"nodeAffinity": nodes, "podAntiAffinity": apart}
    assert server_pod(child)["affinity"] == {"nodeAffinity": nodes}
    assert "affinity" not in server_pod(complete_child())


def test_the_name_of_the_service_begins_with_a_letter() -> None:
    job = finished_job()
    job["metadata"]["name"] = "7b-sums"
    names = [each["metadata"]["name"] for each in server_objects(job, complete_child(), [], 0, "x/gpu")]
    assert names == ["serve-7b-sums"] * 2


def test_a_jobs_objects_are_printed_with_the_request_that_tries_them(server: PodServer) -> None:
    server.child = complete_child()
    result = rft("serve", "sums")
    assert result.exit_code == 0, result.output
    service, deployment = yaml.safe_load_all(result.stdout)
    command = deployment["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[:5] == ["python", "-m", "rft_trainer.serve", "--base", "org/model"]
    assert command[command.index("--adapter") + 1] == "/folder/adapter"
    assert command[command.index("--host") + 1] == "::", "a pod may have only an IPv6 address"
    assert service["kind"] == "Service"
    assert "kubectl port-forward -n team service/serve-sums 8000:8000" in result.stderr
    server.child = None
    assert "rft download sums, then rft serve runs/sums" in rft("serve", "sums").stderr


@pytest.mark.parametrize(
    ("output", "step", "best", "path"),
    [
        ({"adapter": "/x/adapter"}, None, False, "adapter"),
        ({"checkpoint": "/x/checkpoints/step-000020"}, None, False, "checkpoints/step-000020/adapter"),
        ({"bestCheckpoint": "/x/step-000010"}, None, True, "checkpoints/step-000010/adapter"),
        ({"adapter": "/a"}, 7, False, "checkpoints/step-000007/adapter"),
    ],
)  # fmt: skip
def test_the_adapter_is_chosen_as_by_export(
    output: dict[str, str], step: int | None, best: bool, path: str
) -> None:
    job = finished_job()
    job["status"]["output"] = output
    assert serve.adapter_on_volume(job, step, best, "/folder") == f"/folder/{path}"


def test_a_job_without_a_checkpoint_is_refused() -> None:
    job = finished_job()
    job["status"]["output"] = {}
    with pytest.raises(UserError, match=r"status\.output\.bestCheckpoint is empty"):
        serve.adapter_on_volume(job, None, True, "/folder")
    job["spec"]["storage"] = {"ephemeral": {}}
    with pytest.raises(UserError, match="on its pod's own disk"):
        server_objects(job, complete_child(), [], 0, "nvidia.com/gpu")


HEALTHY = """
import http.server, sys
class Once(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.server.done = True
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Once)
server.handle_request()
sys.exit(int(sys.argv[2]))
"""


SIGNALLING = """
import http.server, os, signal, sys, tempfile
tempfile.mkstemp()
class Signals(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        os.kill(os.getppid(), int(sys.argv[3]))
if sys.argv[2] == "ignores":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Signals).serve_forever()
"""


@pytest.mark.parametrize("kind", ["obeys", "ignores"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_rft_ends_the_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, number: signal.Signals
) -> None:
    """The server ends even if it ignores SIGTERM. Its temporary files are removed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(serve, "END_SECONDS", 0.2)
    monkeypatch.setattr(serve, "POLL_SECONDS", 0.02)
    started: list[subprocess.Popen[bytes]] = []

    class StartedProcess(subprocess.Popen[bytes]):
        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", StartedProcess)
    port = free_port()
    command = [sys.executable, "-c", SIGNALLING, str(port), kind, str(int(number))]
    assert serve._run_server(command, port, "ready") == 0
    process, watcher = started
    assert watcher.returncode == -signal.SIGKILL
    expected = signal.SIGTERM if kind == "obeys" else signal.SIGKILL
    assert process.returncode == -expected
    assert list(tmp_path.iterdir()) == []


SERVING = """
import subprocess, sys
from rft_cli.commands import serve
serve._run_server([sys.executable, "-c", sys.argv[2]], int(sys.argv[1]), "ready")
"""


WITH_AN_ENGINE = """
import subprocess, sys
engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(engine.pid, flush=True)
engine.wait()
"""


def test_a_killed_rft_leaves_neither_the_server_nor_its_engine(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVING, str(free_port()), WITH_AN_ENGINE]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as rft:
        assert rft.stdout is not None
        engine = int(rft.stdout.readline())
        server = int(fields_of(engine)[1])
        children = Path(f"/proc/{rft.pid}/task/{rft.pid}/children")
        wait_until("the watcher starts", lambda: len(children.read_text().split()) == 2, poll=0.02)
        assert is_running(engine)
        assert is_running(server)
        rft.kill()
    wait_until("both end", lambda: not (is_running(engine) or is_running(server)), poll=0.02)


def fields_of(pid: int) -> list[str]:
    """Return the fields of ``/proc/PID/stat`` after the program's name: state, PID of the parent, others."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def is_running(pid: int) -> bool:
    try:
        return fields_of(pid)[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_port_that_is_in_use_is_refused() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: another process listens on it"):
            serve._run_server([sys.executable, "-c", ""], port, "ready")


@pytest.mark.parametrize("code", [0, 3])
def test_the_request_is_printed_once_the_server_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    write_adapter(tmp_path / "run" / "adapter")
    write_records(tmp_path / "run", finished_job())
    port = free_port()
    seen: list[str] = []

    def arguments(*given: object) -> list[str]:
        seen.extend(map(str, given))
        return [str(port), str(code)]

    monkeypatch.setattr(serve, "module_arguments", arguments)
    monkeypatch.setattr(serve, "trainer_command", lambda: [sys.executable, "-c", HEALTHY, "rft_trainer"])
    monkeypatch.setattr(serve, "POLL_SECONDS", 0.02)
    result = rft("serve", tmp_path / "run", "--port", port)
    assert str(tmp_path / "run" / "adapter") in seen
    line = next(line for line in result.stdout.splitlines() if line.startswith("curl"))
    assert f"http://127.0.0.1:{port}/v1/chat/completions" in line
    assert json.loads(line.partition("-d '")[2].rstrip("'"))["model"] == "sums"
    assert result.exit_code == (1 if code else 0)
    assert ("ended with exit code 3" in result.stderr) is bool(code)


def test_an_adapter_without_a_run_has_no_known_base(tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter")
    result = rft("serve", tmp_path / "adapter")
    assert result.exit_code == 2
    assert "its base model is not known" in result.stderr
