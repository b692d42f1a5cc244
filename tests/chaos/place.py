"""Prepares the things that the jobs need: the test cluster, and a namespace with a volume."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.jobs import CLAIM, NAME_LABEL, prerequisites, reader
from tests.cluster.shell import ClusterError
from tests.kubectl import Kubectl, Object
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
NAMESPACE, OPERATOR_NAMESPACE = "rft-chaos", "rft-system"


def cluster() -> tuple[Path, Path]:
    """Return the path of kubectl, and the path of the running test cluster's kubeconfig."""

    def ask(what: str) -> str:
        command = [sys.executable, "-m", "tests.cluster", what]
        return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    program = shutil.which("kubectl", path=f"{ask('tools')}:{os.environ['PATH']}")
    if program is None:
        raise ClusterError("kubectl was not found")
    return Path(program), Path(ask("kubeconfig"))


@contextmanager
def namespace(
    jobs: Kubectl,
    keep: bool,
    placed: Object | None = None,
    mount: Callable[[str], None] = lambda _: None,
    unmount: Callable[[str], None] = lambda _: None,
) -> Iterator[Path]:
    """Create the namespace with the objects that all jobs share. Yield the volume's folder on the node.

    - ``placed`` are fields for the spec of the pod that reads the volume.
    - ``mount`` is called with the volume's folder before anything uses the volume.
    - ``unmount`` is called with the volume's folder at the end, after the namespace is deleted.
    - ``keep``: at the end the namespace stays, and ``unmount`` is not called.
    """
    _remove(jobs)
    jobs.run("create", "namespace", NAMESPACE)
    subprocess.run([sys.executable, "-m", "tests.cluster", "renew-volumes"], cwd=ROOT, check=True)
    jobs.apply(*prerequisites())
    bound = wait_until("the claim is bound", lambda: jobs.get("pvc", CLAIM)["spec"].get("volumeName"), 60)
    folder = jobs.get("persistentvolume", bound)["spec"]["hostPath"]["path"]
    mount(folder)
    try:
        pod = reader()
        pod["spec"] |= placed or {}
        jobs.apply(pod)
        wait_until(
            "the reader pod runs", lambda: jobs.get("pod", "reader")["status"]["phase"] == "Running", 120
        )
        yield Path(folder)
    finally:
        if not keep:
            _remove(jobs)
            unmount(folder)


def _remove(jobs: Kubectl) -> None:
    jobs.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")
    # This takes longer if trainers run, because they end within their grace period.
    there = ("get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name")
    wait_until("the namespace is gone", lambda: not jobs.run(*there).stdout, 300, poll=1.0)


def clear(jobs: Kubectl, names: Sequence[str]) -> None:
    """Delete jobs and the files that they wrote."""
    jobs.run("delete", "rftjob", *names, "--ignore-not-found", "--wait", check=False)
    wait_until("the jobs' pods are gone", lambda: not jobs.list("pods", NAME_LABEL), 120)
    jobs.run("exec", "reader", "--", "sh", "-c", "rm -rf /runs/*")
