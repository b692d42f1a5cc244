"""The chart's monitoring: a Service for metrics, and optionally a ServiceMonitor, alerts and a dashboard."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from rft_codegen.monitoring import ALERTS, PANELS
from tests.unit.chart_support import one, rendered

OPERATOR = "rft-rft-operator"
CASES = Path(__file__).parents[1] / "monitoring" / "rules.yaml"
ON = (
    "metrics.serviceMonitor.enabled=true",
    "metrics.serviceMonitor.labels.release=p",
    "metrics.prometheusRule.enabled=true",
    "metrics.prometheusRule.labels.release=p",
    "metrics.dashboard.enabled=true",
)


def test_only_the_service_is_rendered_by_default() -> None:
    kinds = {d["kind"] for d in rendered()}
    assert not kinds & {"ServiceMonitor", "PrometheusRule", "ConfigMap"}
    service = one(rendered("metrics.port=9191"), "Service", f"{OPERATOR}-metrics")["spec"]
    assert [(p["port"], p["targetPort"]) for p in service["ports"]] == [(9191, "metrics")]
    labels = one(rendered(), "Deployment", OPERATOR)["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items(), (
        "the Service must also select the operator that waits for the Lease"
    )


def test_the_monitor_selects_the_service_of_the_metrics_only_and_keeps_the_namespace_of_jobs() -> None:
    monitor = one(rendered(*ON), "ServiceMonitor", OPERATOR)
    assert monitor["metadata"]["labels"]["release"] == "p"
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    services = [d["metadata"] for d in rendered(*ON) if d["kind"] == "Service"]
    assert [s["name"] for s in services if wanted <= s["labels"].items()] == [f"{OPERATOR}-metrics"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["honorLabels"]) == ("metrics", True)


def test_the_rule_has_every_alert_and_its_templates_are_left_to_prometheus() -> None:
    rule = one(rendered(*ON), "PrometheusRule", OPERATOR)
    assert rule["metadata"]["labels"]["release"] == "p"
    (group,) = rule["spec"]["groups"]
    summaries = {each["alert"]: each["annotations"]["summary"] for each in group["rules"]}
    assert summaries == {alert.name: alert.summary for alert in ALERTS}


def test_the_dashboard_is_in_a_config_map_for_grafanas_sidecar() -> None:
    found = one(rendered(*ON), "ConfigMap", f"{OPERATOR}-dashboard")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    (text,) = found["data"].values()
    assert [panel["title"] for panel in json.loads(text)["panels"]] == [panel.title for panel in PANELS]


def test_helm_test_asks_the_service_of_the_metrics_for_the_holder_of_the_lease() -> None:
    pod = one(rendered("metrics.port=9191"), "Pod", f"{OPERATOR}-test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (container,) = pod["spec"]["containers"]
    (program,) = container["args"]
    compile(program, "the test", "exec")
    assert f"http://{OPERATOR}-metrics.sys.svc:9191/metrics" in program
    operator = one(rendered(), "Deployment", OPERATOR)["spec"]["selector"]["matchLabels"]
    assert not operator.items() <= pod["metadata"]["labels"].items(), "no Service may select helm's test pod"


def test_there_is_a_case_in_which_each_alert_fires_and_one_in_which_it_clears() -> None:
    tests = yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    for alert in ALERTS:
        found = [bool(case["exp_alerts"]) for case in cases if case["alertname"] == alert.name]
        assert found == [False, True, False], alert.name


def test_promtool_agrees_with_every_case() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: Debian's package `prometheus` has it")
    done = subprocess.run([promtool, "test", "rules", CASES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
