"""The chart passes ``helm lint --strict`` with each of six sets of values.

If a set is rendered twice, the results are equal.
"""

import re
import subprocess

import pytest

from tests.unit.chart_support import CHART, SETS, template


@pytest.mark.parametrize("name", SETS)
def test_helm_finds_nothing_to_complain_about(name: str) -> None:
    helm = template().args[0]
    options = [word for value in SETS[name] for word in ("--set", value)]
    done = subprocess.run(
        [helm, "lint", "--strict", str(CHART), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SETS)
def test_every_rendering_is_the_same(name: str) -> None:
    first, second = template(*SETS[name]), template.__wrapped__(*SETS[name])
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout


def test_no_template_asks_what_the_cluster_has_but_its_version() -> None:
    asking = re.compile(r"\.Capabilities[.\w]*|\blookup\b|\bgen\w*Cert\b|\brand\w+")
    texts = [path.read_text(encoding="utf-8") for path in (CHART / "templates").rglob("*.*")]
    asked = {word for text in texts for word in asking.findall(text)}
    assert asked == {".Capabilities.KubeVersion.Version"}
