"""Helm on a real cluster: upgrade, rollback, uninstall and a second release, while jobs train.

`make upgrade` runs these tests on a kind cluster of their own. `make test` leaves them out, because they take
minutes, and install and delete the CRD of RFTJobs.
"""

import base64
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from rft_run.config import TRAINER_CONTAINER
from tests.chaos.jobs import job, prerequisites, reader
from tests.e2e.conftest import ROOT, connected
from tests.e2e.jobs_support import condition, ended, pods, status
from tests.e2e.older_image_support import CODE, layered, load
from tests.e2e.releases_support import CRD, InstalledOperator, fields, imported, served_fields
from tests.integration.account_support import Audit
from tests.kubectl import Kubectl, Object
from tests.skew.releases import Release, release_of, this_release
from tests.tables import Table, table
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.releases, pytest.mark.timeout(1800)]

OLD = "c5ea54e"
DEV = "dev"
"""Tag of this release's images."""
NAME = "trains-on"
ROWS = "many-rows"
READER = "reader"
FURTHER = 2
"""The tests accept that a run still trains if it completes this many more steps."""
RED, BLUE = "rft-red", "rft-blue"


class Place(Protocol):
    """A function that returns kubectl for a namespace, which is deleted after the test.

    It creates the namespace, unless ``exists`` is false.
    """

    def __call__(self, namespace: str, *, exists: bool = True) -> Kubectl: ...


@pytest.fixture
def place() -> Iterator[Place]:
    """A function that makes namespaces, on a cluster without the CRD of RFTJobs.

    After the test, the namespaces, the operator's releases in them and the CRD are removed.
    """
    cluster = connected("default")
    found = cluster.run("get", "crd", CRD, "--ignore-not-found", "-o", "name").stdout
    assert not found, f"these tests install and delete the CRD: run them on a cluster without {CRD}"
    cluster.run("get", "service", "kube-dns", "--namespace=kube-system")  # trainers need it in these tests
    made: list[Kubectl] = []

    def _place(namespace: str, *, exists: bool = True) -> Kubectl:
        kubectl = Kubectl(cluster.program, cluster.kubeconfig, namespace)
        if exists:
            kubectl.run("create", "namespace", namespace)
        made.append(kubectl)
        return kubectl

    yield _place
    if "RFT_KEEP" in os.environ:
        return
    for each in made:
        InstalledOperator(each).helm("uninstall", "rft-operator", "--ignore-not-found", check=False)
    names = [each.namespace for each in made]
    cluster.run("delete", "namespace", *names, "--ignore-not-found", "--wait=false")
    there = ("get", "namespace", *names, "--ignore-not-found", "-o", "name")
    wait_until("the namespaces are gone", lambda: not cluster.run(*there).stdout, 300, poll=1.0)
    cluster.run("delete", "crd", CRD, "--ignore-not-found")


class TrainingRun:
    """A run that trains while its operator is replaced."""

    def __init__(self, kubectl: Kubectl, name: str, events: Table) -> None:
        """The job ``name`` must have exactly one pod.

        ``events`` is a table. ``during`` adds a row to it, e.g. for an upgrade.
        """
        self.kubectl, self.name, self.events = kubectl, name, events
        self._began = self._pod()

    @property
    def pod(self) -> str:
        """Name of the pod."""
        return str(self._began["metadata"]["name"])

    def steps(self) -> list[int]:
        """Return the numbers of the completed steps, as the trainer recorded them on the volume."""
        command = ("sh", "-c", "find /runs -name metrics.jsonl -exec cat {} +")
        lines = self.kubectl.exec(READER, READER, *command).splitlines(keepends=True)
        return [int(json.loads(line)["step"]) for line in lines if line.endswith("\n")]

    @contextmanager
    def during(self, event: str) -> Iterator[None]:
        """Add a row to the table for what the ``with`` block does, e.g. an upgrade of the operator.

        Check that the run keeps its pod meanwhile, and completes more steps afterwards.
        """
        before, began = len(self.steps()), time.monotonic()
        yield
        seconds, after = time.monotonic() - began, len(self.steps())
        self.is_the_same()
        self.events.rows.append((event, f"{seconds:.0f}", f"{before} to {after}"))
        self.trains_on(after)

    def trains_on(self, since: int) -> None:
        """Wait until the run has completed ``FURTHER`` more steps than ``since``, a number of steps."""
        wait_until("the run goes on", lambda: len(self.steps()) >= since + FURTHER, 120)

    def is_reported(self) -> None:
        """Wait until the job's status shows ``FURTHER`` more steps than the run has completed now.

        Check that the job is still in its first attempt, and has the same pod.
        """
        wanted = len(self.steps()) + FURTHER
        wait_until("the status follows", lambda: self.shown_step() >= wanted, 180)
        found = status(self.kubectl, self.name)
        assert found["phase"] == "Running", found
        assert found["progress"]["attempt"] == 1
        assert found.get("failedPods", 0) == 0
        self.is_the_same()

    def shown_step(self) -> int:
        """Return the step in the job's status, which the operator writes."""
        return int(status(self.kubectl, self.name).get("progress", {}).get("step", 0))

    def is_the_same(self) -> None:
        """Check that the run still has its first pod, whose containers were never restarted."""
        now = self._pod()
        assert now["metadata"]["uid"] == self._began["metadata"]["uid"]
        assert [each["restartCount"] for each in now["status"]["containerStatuses"]] == [0]

    def _pod(self) -> Object:
        (found,) = pods(self.kubectl, self.name)
        return found


def succeeds(kubectl: Kubectl, name: str) -> Object:
    """Wait until a job has ended. Check that it succeeded, and return its status."""
    found = wait_until(f"{name} ends", lambda: ended(kubectl, name), 300)
    assert found["phase"] == "Succeeded", found
    return found


def short(name: str) -> Object:
    """Return a job of two steps."""
    made = job(name, "transformers")
    made["spec"] |= {"stop": {"maxSteps": 2}}
    return made


# --- one release, replaced while a job trains ---------------------------------------------------------


def long_job() -> Object:
    """Return a job that trains until its ``stop`` is set. Its trainer has the code of the release ``OLD``.

    The code is in the job's volume. PYTHONPATH names it, so Python imports it and not the image's own.
    """
    made = job(NAME, "transformers")
    spec = made["spec"]
    del spec["stop"]
    spec["dataset"]["configMap"]["name"] = ROWS
    spec["evaluation"] = {"fraction": 0.02}
    spec["checkpoint"] = {"everySteps": 50}
    path = f"/runs/{OLD}/operator:/runs/{OLD}/trainer-image"
    spec["template"]["env"] += [{"name": "PYTHONPATH", "value": path}]
    return made


def many_rows() -> Object:
    """Return a ConfigMap with 1,800 rows, enough for thousands of steps."""
    rows = [
        {"messages": [{"role": "user", "content": f"{a}+{b}"}], "answer": a + b}
        for a in range(10, 100)
        for b in range(10, 30)
    ]
    text = "\n".join(map(json.dumps, rows))
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": ROWS}, "data": {"rows.jsonl": text}}


def unpacked(kubectl: Kubectl, release: Release) -> None:
    """Start the pod that reads the volume. Write the packages of ``release`` into the volume."""
    kubectl.apply(reader())
    wait_until(
        "the pod that reads the volume runs",
        lambda: kubectl.get("pod", READER)["status"]["phase"] == "Running",
        120,
    )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for folder in ("operator", "trainer-image"):
            archive.add(release.folder / folder, folder)
    code = (
        "import base64, io, sys, tarfile\n"
        "archive = tarfile.open(fileobj=io.BytesIO(base64.b64decode(sys.stdin.read())))\n"
        f"archive.extractall('/runs/{OLD}')\n"
    )
    command = ("exec", "--stdin", READER, "--", "python", "-c", code)
    kubectl.run(*command, stdin=base64.b64encode(buffer.getvalue()).decode())


def begun(kubectl: Kubectl, events: Table) -> TrainingRun:
    """Create the job of ``long_job``. Wait until its status shows ``FURTHER`` steps, and return its run."""
    kubectl.apply(long_job())
    wait_until(
        "the first steps", lambda: status(kubectl, NAME).get("progress", {}).get("step", 0) >= FURTHER, 300
    )
    run = TrainingRun(kubectl, NAME, events)
    path = imported(kubectl, run.pod, TRAINER_CONTAINER, "rft_trainer")
    assert path.startswith(f"/runs/{OLD}/"), path
    return run


@pytest.fixture
def old(tmp_path: Path) -> Release:
    """The release of the commit ``OLD``. The image of its operator is on the nodes, with the tag ``OLD``."""
    release = release_of(OLD, tmp_path / OLD)
    archive = tmp_path / f"{OLD}-operator.tar"
    layered(ROOT / ".cache/images/operator.tar", release, f"docker.io/library/rft-operator:{OLD}", archive)
    load(archive)
    archive.unlink()
    return release


def test_a_training_job_does_not_notice_what_helm_does_to_its_operator(
    place: Place, old: Release, request: pytest.FixtureRequest
) -> None:
    system, jobs = place("rft-upgrade-system", exists=False), place("rft-upgrade")
    new, operator = this_release(), InstalledOperator(system)
    assert fields(old) < fields(new), "the CRD shows which release is installed"
    events = table(
        request.config, "Helm, while a job trains", "event", "seconds", "steps of the run, before to after"
    )

    operator.install(old, OLD)
    assert operator.code().startswith(f"{CODE}/operator/")
    assert served_fields(jobs) == fields(old)
    jobs.apply(*prerequisites(), many_rows())
    unpacked(jobs, old)
    run = begun(jobs, events)
    definition = jobs.get("crd", CRD)["metadata"]["uid"]

    with run.during(f"upgrade from {OLD}"):
        operator.install(new, DEV)
    assert not operator.code().startswith(CODE)
    assert served_fields(jobs) == fields(new)
    run.is_reported()

    with run.during(f"rollback to {OLD}"):
        operator.roll_back(OLD)
    assert operator.code().startswith(f"{CODE}/operator/")
    assert served_fields(jobs) == fields(old)
    run.is_reported()

    with run.during("upgrade again"):
        operator.install(new, DEV)
    run.is_reported()

    with run.during("uninstall"):
        operator.uninstall()
    shown = run.shown_step()
    run.trains_on(len(run.steps()))
    assert run.shown_step() == shown, "the status changed without an operator"
    assert jobs.get("crd", CRD)["metadata"]["uid"] == definition
    system.get("secret", "rft-operator-ingest-tls")

    with run.during("install again"):
        operator.install(new, DEV)
    run.is_reported()
    assert jobs.get("crd", CRD)["metadata"]["uid"] == definition

    # The operator's answer to a report has the new `stop`.
    patch = {"spec": {"stop": {"maxSteps": len(run.steps()) + FURTHER}}}
    jobs.run("patch", "rftjob", NAME, "--type=merge", f"--patch={json.dumps(patch)}")
    found = succeeds(jobs, NAME)
    assert condition(found, "Complete")["reason"] == "MaxStepsReached"
    assert found["progress"]["attempt"] == 1
    assert found.get("failedPods", 0) == 0
    run.is_the_same()
    steps = run.steps()
    assert steps == list(range(1, len(steps) + 1))
    assert found["progress"]["step"] == len(steps)

    jobs.apply(short("new"))
    succeeds(jobs, "new")


# --- two releases -------------------------------------------------------------------------------------


def keeps_to(operator: InstalledOperator, served: str) -> None:
    """Check that all requests of an operator were for its own namespace or for ``served``.

    Check also that none of them was refused.
    """
    asked = Audit().requests(operator.user)
    assert [one for one in asked if one.refused] == []
    assert {one.namespace for one in asked} - {""} == {operator.kubectl.namespace, served}
    of_the_cluster = {one.right.resource for one in asked if not one.namespace}
    assert of_the_cluster.isdisjoint({"rftjobs", "jobs", "pods", "configmaps", "events"})


def test_two_releases_serve_their_own_namespaces(place: Place) -> None:
    release, red, blue = this_release(), place(RED), place(BLUE)
    first, second = (InstalledOperator(place(f"{name}-system", exists=False)) for name in (RED, BLUE))
    first.install(release, DEV, f"watch.namespaces={{{RED}}}")
    of_blue = f"watch.namespaces={{{BLUE}}}"
    refused = second.install(release, DEV, of_blue, check=False)
    assert refused.returncode != 0, "the CRD belongs to the first release"
    assert CRD in refused.stderr
    second.install(release, DEV, of_blue, "crds.install=false")
    first.test()
    second.test()

    for each in (red, blue):
        each.apply(*prerequisites(), short("first"))
    for each in (red, blue):
        succeeds(each, "first")
    keeps_to(first, RED)
    keeps_to(second, BLUE)

    first.uninstall()
    assert status(red, "first")["phase"] == "Succeeded"
    second.install(release, DEV, of_blue, options=["--take-ownership"])
    owner = blue.get("crd", CRD)["metadata"]["annotations"]["meta.helm.sh/release-namespace"]
    assert owner == second.kubectl.namespace
    blue.apply(short("second"))
    succeeds(blue, "second")
    keeps_to(second, BLUE)
