"""Alerts and panels query only metrics that exist. The docs list every metric, alert and reason."""

import json
from pathlib import Path

import yaml

from rft_api.conditions import Reason
from rft_api.metrics import METRICS
from rft_codegen.monitoring import ALERTS, PANELS, dashboard_json, metrics_of, monitoring_markdown, rules_yaml
from rft_codegen.troubleshooting import HELP, troubleshooting_markdown

ROOT = Path(__file__).parents[2]


def test_alerts_and_panels_query_only_metrics_that_exist() -> None:
    unknown = {
        each.expr: names for each in (*ALERTS, *PANELS) if (names := metrics_of(each.expr) - METRICS.keys())
    }
    assert unknown == {}
    assert all(metrics_of(each.expr) for each in (*ALERTS, *PANELS))


def test_a_series_of_a_histogram_is_known_and_one_of_a_gauge_is_not() -> None:
    assert metrics_of("rate(rft_reconcile_seconds_bucket[5m])") == {"rft_reconcile_seconds"}
    assert metrics_of("rft_jobs_finished") - METRICS.keys() == {"rft_jobs_finished"}


def test_every_metric_and_every_alert_is_on_the_page() -> None:
    page = monitoring_markdown()
    assert all(f"`{name}`" in page for name in (*METRICS, *(alert.name for alert in ALERTS)))


def test_the_rule_file_has_each_alert_with_a_summary_and_an_action() -> None:
    (group,) = yaml.safe_load(rules_yaml())["groups"]
    assert [rule["alert"] for rule in group["rules"]] == [alert.name for alert in ALERTS]
    for rule in group["rules"]:
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]


def test_the_dashboard_has_each_panel_and_leaves_the_data_source_open() -> None:
    panels = json.loads(dashboard_json())["panels"]
    assert [panel["title"] for panel in panels] == [panel.title for panel in PANELS]
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}


def test_every_reason_is_explained() -> None:
    reasons = {value for name, value in vars(Reason).items() if name.isupper()}
    assert HELP.keys() == reasons
    page = troubleshooting_markdown()
    assert all(f"| `{reason}` | " in page for reason in reasons)
