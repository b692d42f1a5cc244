"""``kubectl apply`` prints advice of the tuning guide, through the webhook that the chart installs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rft_advice import advise
from rft_api.loader import load_file
from rft_api.validation import parse
from tests.e2e.conftest import ROOT, install
from tests.kubectl import Kubectl
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

MANIFESTS = sorted((ROOT / "examples" / "advice").glob("*.yaml"))


@pytest.fixture(scope="module")
def webhook(kubectl: Kubectl) -> Iterator[Kubectl]:
    """kubectl for a cluster whose webhook answers."""
    install("--set", "webhook.enabled=true")
    bad = {
        "apiVersion": "rft.dev/v1alpha1",
        "kind": "RFTJob",
        "metadata": {"name": "no-source"},
        "spec": {"model": {"name": "m"}, "dataset": {}, "graders": [{"name": "g"}], "storage": {}},
    }
    # If the API server cannot reach the webhook, it accepts everything. So one refusal shows that the
    # API server can reach the webhook.
    wait_until("the webhook answers", lambda: kubectl.apply(bad, check=False).returncode != 0, 60)
    refused = kubectl.apply(bad, check=False).stderr
    for field in ("spec.dataset", "spec.graders[0]", "spec.storage"):
        assert field in refused
    yield kubectl
    install()


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_kubectl_apply_prints_the_advice_that_each_example_triggers(webhook: Kubectl, manifest: Path) -> None:
    objects = [document.body for document in load_file(manifest)]
    spoken = [advice for o in objects if o["kind"] == "RFTJob" for advice in advise(parse(o).spec)]
    printed = webhook.apply(*objects).stderr
    webhook.run("delete", "rftjob", objects[0]["metadata"]["name"])
    warnings = [line for line in printed.splitlines() if line.startswith("Warning:")]
    assert len(warnings) == len(spoken) == (0 if manifest.stem == "defaults" else 1)
    for advice, line in zip(spoken, warnings, strict=True):
        assert advice.rule == manifest.stem
        assert advice.path in line
