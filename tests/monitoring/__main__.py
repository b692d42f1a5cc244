"""Runs the query of every alert and every panel in a real Prometheus that scrapes the operator's metrics.

    python -m tests.monitoring
    python -m tests.monitoring --picture docs/pictures/dashboard.svg

The program needs `prometheus` on the PATH. Debian's package `prometheus` has it. The metrics are the
operator's own objects, served by the operator's own code. Two scenarios change them. In the first scenario
every query has a result, and every alert fires. In the second scenario every alert clears.

Here the ranges of the queries are 5 s, and an alert fires without a waiting time.
`promtool test rules tests/monitoring/rules.yaml` tests the alerts with their real times.

With ``--picture``, the program does not do this. It draws the panels of the dashboard, with their real
ranges, for an invented morning: ``morning.py`` has the samples, and ``picture.py`` draws them. This also
needs `promtool`, of the same package.
"""

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import MetricsHandler

from rft_codegen.monitoring import ALERTS, PANELS, rules_yaml
from rft_operator import metrics, threads
from tests.monitoring import picture
from tests.monitoring.server import ask, prometheus
from tests.monitoring.shown import show
from tests.waiting import wait_until

WINDOW = "5s"
WAITS_SINCE = datetime(2026, 11, 1, tzinfo=UTC)
TIMEOUT_SECONDS = 60.0
_DURATION = re.compile(r"\[\d+[mh]\]")


def shortened(text: str) -> str:
    """Change a rule file or query: ranges get the length ``WINDOW``, and alerts fire without waiting."""
    return re.sub(r"(\bfor: )\d+m", r"\g<1>0s", _DURATION.sub(f"[{WINDOW}]", text))


class Scenario:
    """Changes the operator's metrics, as real events would. Each call of ``turn`` increases the counters.

    If ``bad`` is true, the metrics make every alert fire. If it is false, they make every alert clear.
    """

    def __init__(self, *, bad: bool) -> None:
        self.bad = bad
        self._version = 0

    def turn(self) -> None:
        """Set all gauges to the scenario's values, and increase its counters once."""
        metrics.LEASE_HELD.set(0 if self.bad else 1)
        metrics.WATCH_SILENCE.set(290 if self.bad else 3)
        metrics.RECONCILES.labels("error" if self.bad else "done").inc(3)
        metrics.RECONCILE_SECONDS.observe(9 if self.bad else 0.01)
        metrics.API_REQUESTS.labels("POST", "403" if self.bad else "201").inc(3)
        metrics.REPORTS.labels("429" if self.bad else "200").inc(20)
        self._jobs()

    def _jobs(self) -> None:
        """Pass the statuses of invented jobs to the metrics. In each call a further job begins and ends."""
        self._version += 1
        gpu = {"usage": {"gpuSeconds": 8.0 * self._version}, "progress": {"step": self._version}}
        self._show("trains", "Running", stalled=self.bad, reward={"latest": 0.5}, **gpu)
        self._show("waits", "Pending" if self.bad else "Succeeded")
        name = f"ends-{self.bad}-{self._version}"
        self._show(name, "Pending")
        self._show(name, "Running")
        self._show(name, "Failed" if self.bad else "Succeeded")
        if self.bad:
            self._show(f"{name}-too", "Pending")
            self._show(f"{name}-too", "Failed")

    def _show(self, name: str, phase: str, *, stalled: bool = False, **status: Any) -> None:
        reason = {"Failed": "DataError", "Succeeded": "Completed"}.get(phase, "Training")
        show(metrics.JOBS, ("team", name), phase, reason, since=WAITS_SINCE, stalled=stalled, **status)


def firing(url: str) -> set[str]:
    """Return the names of the alerts that are firing."""
    alerts = (ask(url, "alerts") or {"alerts": []})["alerts"]
    return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


def without_result(url: str) -> list[str]:
    """Return those queries of alerts and panels that have no result now."""
    queries = [shortened(each.expr) for each in (*ALERTS, *PANELS)]
    return [query for query in queries if not (ask(url, "query", query=query) or {}).get("result")]


def until(what: str, scenario: Scenario, reached: Callable[[], object]) -> None:
    """Call ``scenario.turn`` until ``reached`` returns a true value. Print how long this took."""

    def step() -> object:
        scenario.turn()
        return reached()

    started = time.monotonic()
    wait_until(what, step, TIMEOUT_SECONDS)
    print(f"{what}: after {time.monotonic() - started:.0f} s")


def check_queries() -> None:
    """Run both scenarios.

    Raises:
        AssertionError: a query has no result in time, or an alert does not fire or clear in time.
    """
    server = threads.serve(MetricsHandler, 0, "metrics")
    scrape = {
        "job_name": "rft-operator",
        "honor_labels": True,
        "static_configs": [{"targets": [f"127.0.0.1:{server.server_address[1]}"]}],
    }
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [scrape],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rules.yaml").write_text(shortened(rules_yaml()), encoding="utf-8")
        with prometheus(folder, config) as url:
            bad, good = Scenario(bad=True), Scenario(bad=False)
            names = {alert.name for alert in ALERTS}
            until(f"{len(ALERTS)} alerts fire", bad, lambda: firing(url) == names)
            until(f"{len(ALERTS) + len(PANELS)} queries have a result", bad, lambda: not without_result(url))
            until("all alerts clear", good, lambda: ask(url, "alerts") is not None and not firing(url))


def main(arguments: list[str] | None = None) -> int:
    """Check the queries, or draw the picture. Return 0.

    Raises:
        AssertionError: as ``check_queries`` and ``picture.make`` do.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.monitoring", description=__doc__)
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the dashboard as SVG into FILE")
    options = parser.parse_args(arguments)
    if options.picture is None:
        check_queries()
    else:
        picture.make(options.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
