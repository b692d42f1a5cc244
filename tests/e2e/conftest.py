"""Fixtures for end-to-end tests on a real cluster, with both images, the chart and a real vLLM."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rft_api.loader import load_file
from tests.chaos.jobs import ONE_THREAD
from tests.integration.kueue_release_support import clear_interrupted
from tests.kubectl import Kubectl, Object

ROOT = Path(__file__).parents[2]
NAMESPACE = "rft-e2e"


def cluster(*arguments: str) -> list[str]:
    """Run a command of ``tests.cluster``. Return the words of the command's output."""
    command = [sys.executable, "-m", "tests.cluster", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.skip(f"no test cluster: {result.stderr.strip()}; start it with `make cluster-up`")
    return result.stdout.split()


def install(*options: str) -> None:
    """Install or upgrade the operator's chart, with additional Helm options.

    The webhook is off, unless the options turn it on. If it is off, the operator itself checks the RFTJobs.
    """
    off = ("--set", "webhook.enabled=false")
    command = [str(ROOT / "scripts" / "demo-cluster.sh"), "install", *off, *options]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def connected(namespace: str) -> Kubectl:
    """Return kubectl for a namespace of the running test cluster."""
    # Downloaded only if it is not on the PATH.
    program = shutil.which("kubectl", path=f"{cluster('tools')[0]}:{os.environ['PATH']}")
    assert program is not None
    return Kubectl(Path(program), Path(description()["kubeconfig"]), namespace)


def description() -> dict[str, str]:
    """Return what the provider knows about the test cluster. Pods reach this machine at ``host_address``."""
    return dict(json.loads(" ".join(cluster("status"))))


@pytest.fixture(scope="session")
def described() -> dict[str, str]:
    """What ``description`` returns."""
    return description()


@pytest.fixture(scope="session")
def kubectl(request: pytest.FixtureRequest) -> Iterator[Kubectl]:
    """kubectl in the tests' namespace. The operator is installed from its chart."""
    kubectl = connected(NAMESPACE)
    clear_interrupted(request.config, kubectl.kubeconfig)
    install()
    kubectl.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait")
    kubectl.run("create", "namespace", NAMESPACE)
    yield kubectl
    if "RFT_KEEP" not in os.environ:
        kubectl.run("delete", "namespace", NAMESPACE, "--wait", check=False)


@pytest.fixture(scope="session")
def example() -> list[Object]:
    """The objects of examples/arithmetic.yaml."""
    return [document.body for document in load_file(ROOT / "examples" / "arithmetic.yaml")]


def variant(example: list[Object], name: str, **changes: Any) -> list[Object]:
    """Return a copy of ``example`` whose RFTJob has the name ``name`` and few steps.

    ``changes`` are new values for fields of the RFTJob's spec. A mapping is merged into the field's value.
    Any other value replaces the field's value.
    """
    objects: list[Object] = json.loads(json.dumps(example))
    job = next(o for o in objects if o["kind"] == "RFTJob")
    job["metadata"] = {"name": name}
    short: Object = {
        "stop": {"maxSteps": 4},
        "checkpoint": {"everySteps": 2},
        "evaluation": {"fraction": 0.03},  # 32 rows, the minimum; 0 turns the evaluation off
        "training": {"batchSizeTokens": 1024},
        "template": {"env": [ONE_THREAD]},
    }
    for section, values in (short | changes).items():
        merged = isinstance(values, dict) and isinstance(job["spec"].get(section), dict)
        job["spec"][section] = {**job["spec"][section], **values} if merged else values
    return objects
