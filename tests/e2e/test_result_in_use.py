"""End-to-end tests of a finished run: its folder is downloaded, and its adapter is pushed and served."""

import hashlib
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.chaos.jobs import job, prerequisites, write_model
from tests.e2e.conftest import NAMESPACE, ROOT
from tests.e2e.jobs_support import condition, ended, status
from tests.kubectl import Kubectl, Object
from tests.ports import free_port
from tests.trainer.greedy_support import answered, greedy, printed_request, served
from tests.trainer.s3_support import Keys, client, serving_s3, variables, with_a_writer
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NAME, REFUSED = "in-use", "in-use-refused"
"""The jobs of these tests. The second one has wrong credentials for its bucket."""
STEPS = 8
BUCKET = "adapters"
READERS = "app.kubernetes.io/name=rft-reader"
OF_THE_SERVER = f"app.kubernetes.io/name=rft-server,app.kubernetes.io/instance={NAME}"
RESTRICTED = "pod-security.kubernetes.io/enforce"
ADDED = {"run.json", "status.yaml", "report.html"}
"""Files that rft download writes itself."""


class Store:
    """An S3 server on this machine. Its bucket ``BUCKET`` gets the adapters."""

    def __init__(self, address: str, keys: Keys) -> None:
        """``keys``: the credentials of a user who may list, read and write."""
        self.keys = keys
        self.variables = variables(address, keys)
        self._client = client("s3", address, keys)

    def folder(self, name: str, to: Path) -> dict[str, bytes]:
        """Download the bucket's objects below the prefix ``name`` into the new folder ``to``.

        Return the content of each file, by its name.
        """
        listed = self._client.list_objects_v2(Bucket=BUCKET, Prefix=f"{name}/").get("Contents", [])
        found = {}
        to.mkdir()
        for key in (each["Key"] for each in listed):
            file = key.removeprefix(f"{name}/")
            found[file] = self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            (to / file).write_bytes(found[file])
        return found


@pytest.fixture(scope="module")
def store(described: dict[str, str]) -> Iterator[Store]:
    """A running S3 server that pods reach."""
    host = described.get("host_address")
    if not host:
        pytest.skip("this cluster's provider does not know at which address pods reach this machine")
    with serving_s3(host) as address, with_a_writer(address, BUCKET) as keys:
        yield Store(address, keys)


@pytest.fixture(scope="module")
def restricted(kubectl: Kubectl) -> Iterator[None]:
    """Pod Security refuses every pod in the tests' namespace that does not meet the level ``restricted``."""
    kubectl.run("label", "namespace", NAMESPACE, f"{RESTRICTED}=restricted", "--overwrite")
    yield
    kubectl.run("label", "namespace", NAMESPACE, f"{RESTRICTED}-")


@pytest.fixture(scope="module", autouse=True)
def _finished(kubectl: Kubectl, store: Store, restricted: None) -> None:
    """Train short jobs to their end."""
    wrong = Keys(store.keys.key_id, "x" * len(store.keys.secret))
    kubectl.apply(*prerequisites())
    for name, keys in ((NAME, store.keys), (REFUSED, wrong)):
        kubectl.apply(secret(name, keys), pushing(name, store))
    for name in (NAME, REFUSED):
        found = wait_until("the job ends", partial(ended, kubectl, name), 600)
        assert found["phase"] == "Succeeded", found["message"]


def secret(name: str, keys: Keys) -> Object:
    return {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "stringData": {"id": keys.key_id, "secret": keys.secret},
    }  # fmt: skip


def pushing(name: str, store: Store) -> Object:
    """Return an RFTJob that pushes its adapter into the bucket with the credentials of the Secret ``name``.

    The learning rate is so high that the adapter changes the greedy completions.
    """
    manifest = job(name, "transformers")
    spec = manifest["spec"]
    spec["stop"] = {"maxSteps": STEPS}
    spec["checkpoint"] = {"everySteps": 4}
    spec["graders"] = [{"name": "digit", "regex": {"pattern": "^[0-9]"}}]
    spec["training"] |= {"learningRate": 5e-4, "klBeta": 0, "cpuDtype": "float32", "seed": 3}
    spec["output"] = {"s3": {"uri": destination(name)}}
    plain = ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION")
    spec["template"]["env"] += [
        *({"name": key, "value": store.variables[key]} for key in plain),
        {"name": "AWS_ACCESS_KEY_ID", "secretRef": {"name": name, "key": "id"}},
        {"name": "AWS_SECRET_ACCESS_KEY", "secretRef": {"name": name, "key": "secret"}},
    ]
    return manifest


def destination(name: str) -> str:
    return f"s3://{BUCKET}/{name}"


def rft(
    kubectl: Kubectl, *arguments: str, variables: dict[str, str] | None = None
) -> "subprocess.Popen[str]":
    """Start rft with the cluster's kubeconfig, and with further environment variables."""
    code = "import sys; from rft_cli.main import app; app(sys.argv[1:])"
    sources = os.pathsep.join([str(ROOT / "operator"), str(ROOT / "trainer-image")])
    environment = {
        **os.environ, "KUBECONFIG": str(kubectl.kubeconfig), "PYTHONPATH": sources, **(variables or {}),
    }  # fmt: skip
    command = [sys.executable, "-c", code, *arguments, "-n", NAMESPACE]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finished(process: "subprocess.Popen[str]") -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ADDED and not path.name.startswith(".")
    }


def digests_on_the_volume(kubectl: Kubectl, pod: str) -> dict[str, str]:
    """Return digests of the run's files, computed by sha256sum in a pod that mounts them."""
    parts = "adapter checkpoints rollouts metrics.jsonl"
    said = kubectl.exec(pod, "reader", "sh", "-c", f"cd /folder && find {parts} -type f | xargs sha256sum")
    return {path: digest for digest, path in (line.split(maxsplit=1) for line in said.splitlines())}


def running_reader(kubectl: Kubectl) -> str | None:
    pods = kubectl.list("pods", READERS)
    return next((p["metadata"]["name"] for p in pods if p["status"].get("phase") == "Running"), None)


def test_an_interrupted_download_deletes_its_pod_and_resumes_to_equal_digests(
    kubectl: Kubectl, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    first = rft(kubectl, "download", NAME, "--output", str(folder))
    wait_until("the pod that reads the volume exists", lambda: kubectl.list("pods", READERS), 120)
    first.send_signal(signal.SIGSTOP)  # so that it is still downloading when it is interrupted
    pod = wait_until("the pod runs", lambda: running_reader(kubectl), 120)
    expected = digests_on_the_volume(kubectl, pod)
    first.send_signal(signal.SIGTERM)
    first.send_signal(signal.SIGCONT)
    said, _ = first.communicate(timeout=60)
    assert first.returncode == 130, said
    wait_until("the pod is deleted", lambda: not kubectl.list("pods", READERS), 60)
    finished(rft(kubectl, "download", NAME, "--output", str(folder)))
    assert digests(folder).items() >= expected.items()
    assert {"adapter/adapter_model.safetensors", "metrics.jsonl"} <= set(expected)
    wait_until("the pod is deleted", lambda: not kubectl.list("pods", READERS), 60)
    assert "reward" in finished(rft(kubectl, "curve", str(folder)))


def test_the_rollouts_of_a_job_are_shown_and_its_server_is_accepted(kubectl: Kubectl) -> None:
    assert f"step {STEPS}, row" in finished(rft(kubectl, "samples", NAME))
    printed = finished(rft(kubectl, "serve", NAME)).partition("When it is ready")[0]
    objects = list(yaml.safe_load_all(printed))
    assert [each["kind"] for each in objects] == ["Service", "Deployment"]
    accepted = kubectl.run("apply", "--dry-run=server", "-f", "-", stdin=printed).stdout
    assert f"service/serve-{NAME} created" in accepted
    assert f"deployment.apps/serve-{NAME} created" in accepted


def test_the_adapter_is_in_the_bucket_that_the_job_names_and_peft_loads_it(
    kubectl: Kubectl, store: Store, tmp_path: Path
) -> None:
    found = status(kubectl, NAME)
    assert found["output"]["pushed"] == destination(NAME)
    complete = condition(found, "Complete")
    assert complete["status"] == "True"
    assert f"The adapter is pushed to {destination(NAME)}" in complete["message"]
    files = store.folder(NAME, tmp_path / "adapter")
    assert files.keys() == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    finished(rft(kubectl, "download", NAME, "--only", "adapter", "--output", str(tmp_path / "run")))
    volume = {path.name: path.read_bytes() for path in (tmp_path / "run" / "adapter").iterdir()}
    assert files == volume
    base, trained = greedy_tokens(tmp_path, tmp_path / "adapter")
    assert base != trained


def test_wrong_credentials_are_said_and_the_printed_command_pushes_the_adapter(
    kubectl: Kubectl, store: Store, tmp_path: Path
) -> None:
    found = status(kubectl, REFUSED)
    assert "pushed" not in found["output"]
    assert found["output"]["adapter"], "the adapter must be on the volume"
    complete = condition(found, "Complete")
    assert (complete["status"], complete["reason"]) == ("True", "MaxStepsReached")
    message = complete["message"]
    assert f"was not pushed, and is on the volume: {destination(REFUSED)}: permission denied" in message
    assert f"To push it: rft push {REFUSED} -n {NAMESPACE} {destination(REFUSED)}" in message
    assert store.keys.key_id not in str(found)
    assert store.folder(REFUSED, tmp_path / "before") == {}
    finished(rft(kubectl, "push", REFUSED, destination(REFUSED), variables=store.variables))
    assert "adapter_config.json" in store.folder(REFUSED, tmp_path / "after")


def greedy_tokens(folder: Path, adapter: Path) -> tuple[list[list[int]], list[list[int]]]:
    """Return the tokens of greedy completions: first of the base model, then of the model with the adapter.

    ``folder`` gets the files of the base model.
    """
    (folder / "model").mkdir()
    write_model(folder / "model")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "model")
    base: Any = AutoModelForCausalLM.from_pretrained(folder / "model", dtype="float32")
    before = greedy(base, tokenizer)
    return before, greedy(PeftModel.from_pretrained(base, str(adapter)), tokenizer)


def is_ready(kubectl: Kubectl) -> bool:
    """Return whether the inference server's pod and the addresses of its Service are ready.

    Raise AssertionError if a container of the pod was restarted.
    """
    [pod] = kubectl.list("pods", OF_THE_SERVER) or [{}]
    for container in pod.get("status", {}).get("containerStatuses", []):
        if container["restartCount"]:
            log = kubectl.run("logs", pod["metadata"]["name"], "--previous", "--tail=40").stdout
            raise AssertionError(f"the server has ended: {container['lastState']}\n{log}")
    # Not EndpointSlices, which Kubernetes 1.20 does not have.
    found = [each for each in kubectl.list("endpoints", "") if each["metadata"]["name"] == f"serve-{NAME}"]
    subsets = [subset for each in found for subset in each.get("subsets") or []]
    return bool(subsets) and not any(subset.get("notReadyAddresses") for subset in subsets)


@contextmanager
def forwarded(kubectl: Kubectl, said: str, port: int) -> Iterator[None]:
    """During the ``with`` block, run the ``kubectl port-forward`` that ``rft serve`` has printed."""
    line = next(line for line in said.splitlines() if "kubectl port-forward" in line)
    _, *words = shlex.split(line.partition(": ")[2].removesuffix(", and then"))
    command = [str(kubectl.program), f"--kubeconfig={kubectl.kubeconfig}", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def listens() -> bool:
        assert process.poll() is None, f"kubectl {shlex.join(words)} has ended"
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
        return False

    try:
        wait_until("kubectl forwards the port", listens, 60)
        yield
    finally:
        process.terminate()
        process.wait(30)


def left(kubectl: Kubectl) -> list[str]:
    """Return kind and name of the objects that still exist of those that ``rft serve --apply`` created."""
    kinds = "deployments,replicasets,pods,services,endpoints"
    return [f"{each['kind']} {each['metadata']['name']}" for each in kubectl.list(kinds, OF_THE_SERVER)]


def test_the_applied_server_answers_through_its_service_as_the_trained_policy_and_ends_with_its_job(
    kubectl: Kubectl, store: Store, tmp_path: Path
) -> None:
    """This is the last test, because it deletes the job."""
    port = free_port()
    said = finished(rft(kubectl, "serve", NAME, "--apply", "--port", str(port)))
    assert f"Service serve-{NAME} created" in said
    assert f"Deployment serve-{NAME} created" in said
    request = printed_request(said.splitlines())
    assert request is not None, said
    address, body = request
    store.folder(NAME, tmp_path / "adapter")
    base, trained = greedy_tokens(tmp_path, tmp_path / "adapter")
    wait_until("the server is ready", lambda: is_ready(kubectl), 300, poll=1)
    with forwarded(kubectl, said, port):
        assert answered(address, body)["model"] == NAME
        assert served(address, body) == trained
        assert served(address, {**body, "model": "/models/tiny"}) == base
    assert left(kubectl), "the server's objects must be found before they are deleted"
    kubectl.run("delete", "rftjob", NAME, "--wait")
    wait_until("nothing of the server is left", lambda: not left(kubectl), 120)
