"""Runs the query of every alert and every panel in a real Prometheus that scrapes the operator's metrics.

    python -m tests.monitoring

The program needs `prometheus` on the PATH. Debian's package `prometheus` has it. The metrics are the
operator's own objects, served by the operator's own code. Two scenarios change them. In the first scenario
every query has a result, and every alert fires. In the second scenario every alert clears.

Here the ranges of the queries are 5 s, and an alert fires without a waiting time.
`promtool test rules tests/monitoring/rules.yaml` tests the alerts with their real times.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import MetricsHandler

from rft_codegen.monitoring import ALERTS, PANELS, rules_yaml
from rft_operator import metrics, threads
from tests.ports import free_ports
from tests.waiting import wait_until

WINDOW = "5s"
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
        """Set all metrics, and increase the counters once."""
        metrics.LEASE_HELD.set(0 if self.bad else 1)
        metrics.WATCH_SILENCE.set(290 if self.bad else 3)
        metrics.RECONCILES.labels("error" if self.bad else "done").inc(3)
        metrics.RECONCILE_SECONDS.observe(9 if self.bad else 0.01)
        metrics.API_REQUESTS.labels("POST", "403" if self.bad else "201").inc(3)
        metrics.REPORTS.labels("429" if self.bad else "200").inc(20)
        self._jobs()

    def _jobs(self) -> None:
        """Report jobs in several phases to the metrics, and then the end of another job."""
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
        conditions = [
            {"type": "Reconciling", "status": "True", "lastTransitionTime": "2026-11-01T00:00:00Z"},
            {"type": "Ready", "reason": reason},
            {"type": "Stalled", "status": str(stalled)},
        ]
        metadata = {"resourceVersion": str(time.monotonic_ns())}
        document = {"metadata": metadata, "status": {"phase": phase, "conditions": conditions, **status}}
        if phase == "Pending":
            # Like a new job, which is first seen without a status.
            metrics.JOBS.observe(("team", name), {"metadata": metadata, "status": {}})
        metrics.JOBS.observe(("team", name), document)


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[str]:
    """Start Prometheus, which scrapes ``127.0.0.1:target`` every second. Yield its URL."""
    program = shutil.which("prometheus")
    if program is None:
        sys.exit("prometheus is not on the PATH; Debian's package `prometheus` has it")
    (port,) = free_ports(1)
    (folder / "rules.yaml").write_text(shortened(rules_yaml()), encoding="utf-8")
    scrape = {
        "job_name": "rft-operator",
        "honor_labels": True,
        "static_configs": [{"targets": [f"127.0.0.1:{target}"]}],
    }
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [scrape],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, *options, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def ask(url: str, path: str, **query: str) -> Any:
    """Return the data in an answer of Prometheus' API, or ``None`` if Prometheus does not answer."""
    address = f"{url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return json.load(answer)["data"]
    except OSError:
        return None


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


def main() -> int:
    """Run both scenarios. Return 0.

    Raises:
        AssertionError: a query has no result in time, or an alert does not fire or clear in time.
    """
    server = threads.serve(MetricsHandler, 0, "metrics")
    with (
        tempfile.TemporaryDirectory() as folder,
        prometheus(Path(folder), server.server_address[1]) as url,
    ):
        bad, good = Scenario(bad=True), Scenario(bad=False)
        names = {alert.name for alert in ALERTS}
        until(f"{len(ALERTS)} alerts fire", bad, lambda: firing(url) == names)
        until(f"{len(ALERTS) + len(PANELS)} queries have a result", bad, lambda: not without_result(url))
        until("all alerts clear", good, lambda: ask(url, "alerts") is not None and not firing(url))
    return 0


if __name__ == "__main__":
    sys.exit(main())
