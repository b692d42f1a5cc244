"""Renders the chart with helm."""

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.layout import default_layout

CHART = Path(__file__).parents[2] / "charts" / "rft-operator"
NAME = "rft-rft-operator-webhook"
Json = dict[str, Any]
SETS = {
    "defaults": (),
    "single namespaces": (
        "watch.namespaces={a,b}",
        "networkPolicy.enabled=true",
        "networkPolicy.runs.enabled=true",
    ),
    "other operators": (
        "webhook.tls.certManager.enabled=true",
        "metrics.serviceMonitor.enabled=true",
        "metrics.prometheusRule.enabled=true",
        "metrics.dashboard.enabled=true",
    ),
    "few rights": (
        "replicas=1",
        "webhook.enabled=false",
        "nodes.read=false",
        "kueue.read=false",
        "logs.read=false",
        "rbac.aggregate=false",
    ),
    "a mirror": (
        "imageRegistry=mirror:5000/x",
        "commonLabels.team=ml",
        "ipFamilyPolicy=PreferDualStack",
        "webhook.hostNetwork=true",
        "extraEnv[0].name=A",
        "jobDefaults.template.imagePullSecrets[0].name=registry",
    ),
    "given accounts and certificates": (
        "webhook.tls.existingSecret=s",
        "webhook.tls.caBundle=pem",
        "serviceAccount.create=false",
        "serviceAccount.name=own",
        "rbac.create=false",
    ),
}
"""Six sets of values for the chart, by the name of the set.

Each value is an argument of ``helm --set``.
"""


@cache
def template(*values: str, namespace: str = "sys") -> subprocess.CompletedProcess[str]:
    helm = shutil.which("helm") or shutil.which("helm", path=default_layout().tools)
    if helm is None:
        pytest.skip("helm is not installed: `python3 -m tests.cluster tools` downloads it")
    options = [word for value in values for word in ("--set", value)]
    program = [helm, "template", "rft", str(CHART), "--namespace", namespace, *options]
    return subprocess.run(program, capture_output=True, text=True, check=False)


LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""A safe YAML loader: the fast one of libyaml if it is installed, because the CRD is long."""


@cache
def rendered(*values: str, namespace: str = "sys") -> list[Json]:
    """Return the objects that the chart renders with ``values``. Each value is an argument of ``helm --set``.

    ``namespace`` is that of the release. Do not change the objects, because the tests share them.
    """
    done = template(*values, namespace=namespace)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.load_all(done.stdout, Loader=LOADER) if document]


def one(documents: list[Json], kind: str, name: str = NAME) -> Json:
    (found,) = [d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name]
    return found
