"""The chart audit reports findings of checkov for which ``argued.yaml`` has no reason.

It also reports reasons in ``argued.yaml`` for findings that checkov does not make any more.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.chart_audit.__main__ import Argument, Finding, arguments, complaints, findings

FOUND = Finding("CKV_1", "Limits should be set", "Deployment a")
ARGUED = Argument("CKV_1", frozenset({"Deployment a"}), "because")


def report(*failed: dict[str, Any], errors: int = 0) -> dict[str, Any]:
    return {"summary": {"parsing_errors": errors}, "results": {"failed_checks": list(failed)}}


def test_a_report_becomes_findings() -> None:
    failed = {
        "check_id": "CKV_1",
        "check_name": "Limits should be set",
        "resource": "Deployment.sys.a",
        "severity": None,
    }
    assert list(findings(report(failed))) == [FOUND]


def test_a_finding_about_the_pods_of_a_deployment_has_their_name() -> None:
    resource = "Pod.sys.a.app.kubernetes.io/name-a.helm.sh/chart-a-0.1.0"
    failed = {"check_id": "CKV2_K8S_6", "check_name": "NetworkPolicy", "resource": resource}
    assert [each.object for each in findings(report(failed))] == ["Pod a"]


def test_a_render_that_checkov_cannot_read_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot read"):
        list(findings(report(errors=1)))


@pytest.mark.parametrize(
    ("found", "argued", "said"),
    [
        ([FOUND], [ARGUED], []),
        ([FOUND], [], ["CKV_1 Limits should be set: Deployment a"]),
        ([FOUND._replace(object="Pod a"), FOUND], [ARGUED], ["CKV_1 Limits should be set: Pod a"]),
        ([], [ARGUED], ["CKV_1 is not found for Deployment a any more; remove it from argued.yaml"]),
    ],
)
def test_findings_and_reasons_belong_together(
    found: list[Finding], argued: list[Argument], said: list[str]
) -> None:
    assert complaints(found, argued) == said


def test_every_argued_finding_has_a_reason(tmp_path: Path) -> None:
    assert all(each.why for each in arguments())
    bare = tmp_path / "argued.yaml"
    bare.write_text("- {check: CKV_1, objects: [Pod a]}\n")
    with pytest.raises(ValueError, match="CKV_1 has no reason"):
        arguments(bare)
