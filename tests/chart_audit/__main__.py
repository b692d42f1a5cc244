"""``python -m tests.chart_audit CHECKOV``: runs the program CHECKOV on the chart with six sets of values.

The command fails if checkov finds something for which ``argued.yaml`` has no reason.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml

from tests.unit.chart_support import SETS, template

ARGUED = Path(__file__).parent / "argued.yaml"


class Finding(NamedTuple):
    """One check that failed for one object."""

    check: str
    name: str
    object: str
    """Kind and name of the object."""


class Argument(NamedTuple):
    """The reason why a check of checkov may fail for some objects."""

    check: str
    objects: frozenset[str]
    """Kind and name of each object."""
    why: str


def arguments(path: Path = ARGUED) -> list[Argument]:
    """Read ``argued.yaml``: the allowed findings, with reasons. Raises ValueError if a reason is missing."""
    found = [
        Argument(entry["check"], frozenset(entry["objects"]), (entry.get("why") or "").strip())
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))
    ]
    for argument in found:
        if not argument.why:
            raise ValueError(f"{path.name}: {argument.check} has no reason; write why it is allowed")
    return found


def findings(report: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the failed checks in checkov's JSON report.

    Raises ValueError if the report says that checkov could not parse the rendered chart.
    """
    if report["summary"]["parsing_errors"]:
        raise ValueError("checkov cannot read the render of the chart")
    for failed in report["results"]["failed_checks"]:
        kind, _namespace, name = failed["resource"].split(".", 2)
        # For the pod of a Deployment checkov appends the pod's labels to the name.
        name = name.partition(".app.kubernetes.io/")[0]
        yield Finding(failed["check_id"], failed["check_name"], f"{kind} {name}")


def complaints(found: Iterable[Finding], argued: Iterable[Argument]) -> list[str]:
    """Return a message for each finding that is not allowed. Also return a message for each allowed
    finding that checkov no longer reports.
    """
    seen = {(each.check, each.object): each.name for each in found}
    allowed = {(each.check, name) for each in argued for name in each.objects}
    return [
        *(f"{check} {seen[check, name]}: {name}" for check, name in sorted(seen.keys() - allowed)),
        *(
            f"{check} is not found for {name} any more; remove it from {ARGUED.name}"
            for check, name in sorted(allowed - seen.keys())
        ),
    ]


def checked(checkov: Path, values: tuple[str, ...]) -> Iterator[Finding]:
    """Yield checkov's findings in the chart with these values. checkov downloads nothing from its vendor.

    Raises RuntimeError if helm or checkov fails.
    """
    made = template(*values)
    if made.returncode != 0:
        raise RuntimeError(made.stderr)
    with TemporaryDirectory() as folder:
        (Path(folder) / "chart.yaml").write_text(made.stdout, encoding="utf-8")
        command = [str(checkov), "--directory", folder, "--framework", "kubernetes", "--output", "json"]
        done = subprocess.run(
            [*command, "--skip-download", "--quiet", "--compact"], capture_output=True, text=True, check=False
        )
    if not done.stdout.startswith("{"):
        raise RuntimeError(f"checkov failed: {done.stderr or done.stdout}")
    yield from findings(json.loads(done.stdout))


def main() -> int:
    """Check the chart with each set of values. Return 1 if ``complaints`` has messages, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.chart_audit", description=__doc__)
    parser.add_argument("checkov", type=Path, help="the program checkov")
    checkov = parser.parse_args().checkov
    found: list[Finding] = []
    for name, values in SETS.items():
        of_set = list(checked(checkov, values))
        print(f"{name}: {len(of_set)} findings")
        found += of_set
    wrong = complaints(found, arguments())
    print(*wrong, sep="\n", end="\n" if wrong else "", file=sys.stderr)
    print(f"{len({each.check for each in found})} checks fail; complaints: {len(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
