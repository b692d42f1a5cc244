"""Measures how many RFTJobs the webhook reviews in a second: by calls of its function, and over TLS.

`make bench-api` runs the server, `python -m rft_operator.webhook`, on one core and the client on another
core. No other program should use the machine.
"""

import argparse
import asyncio
import copy
import json
import os
import platform
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from bench.machine import processor
from rft_operator import tls
from rft_operator.webhook.review import review
from rft_operator.webhook.server import VALIDATE_PATH

GOAL = 200
"""The goal: reviews per second that one core must be able to answer."""
PORT, HEALTH_PORT = 18443, 18080
SPEC: dict[str, Any] = {
    "model": {"name": "Qwen/Qwen2.5-7B-Instruct"},
    "dataset": {"configMap": {"name": "rows"}},
    "graders": [
        {"name": "right", "weight": 2, "numeric": {"field": "answer"}},
        {"name": "short", "python": {"inline": "def grade(completion, row):\n    return 1.0\n" * 40}},
    ],
    "training": {"learningRate": 1e-4, "epochs": 2, "loraRank": 16, "batchSizeTokens": 32768},
    "sampling": {"temperature": 0.7, "topK": 40, "numRollouts": 8, "maxTokens": 2048},
    "storage": {"claimTemplate": {"size": "50Gi"}},
    "stop": {"targetReward": 0.9, "patience": 5},
}
BROKEN = {
    **SPEC,
    "storage": {},
    "graders": [{"name": "right"}, {"name": "right"}],
    "sampling": {"topK": 101, "temperature": "0.7"},
}


class Row(NamedTuple):
    """One line of the result table. ``times`` has the seconds of each review."""

    what: str
    per_second: float
    times: list[float]
    note: str = ""


def document(spec: dict[str, Any], old: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the AdmissionReview of a job with ``spec``: an update of the spec ``old``, or a creation."""

    def job(of: dict[str, Any]) -> dict[str, Any]:
        metadata = {"name": "bench", "namespace": "team", "uid": "6f0e", "generation": 1}
        return {"apiVersion": "rft.dev/v1alpha1", "kind": "RFTJob", "metadata": metadata, "spec": of}

    request = {
        "uid": "7f0b2891-916f-4ed6-b7cd-27bff1815a8c",
        "resource": {"group": "rft.dev", "version": "v1alpha1", "resource": "rftjobs"},
        "namespace": "team",
        "operation": "UPDATE" if old is not None else "CREATE",
        "object": job(spec),
        "oldObject": job(old) if old is not None else None,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


VALID = document(SPEC)
REVIEWS = {
    "create, valid": VALID,
    "create, several problems": document(BROKEN),
    "update, valid": document({**SPEC, "cancel": True}, SPEC),
    "update, spec unchanged": document(SPEC, copy.deepcopy(SPEC)),
}


def in_process(what: str, given: dict[str, Any], count: int) -> Row:
    """Measure ``count`` calls of ``review`` in this process, each with the parsing and writing of JSON.

    ``what`` is the label of the row. ``given`` is the AdmissionReview.
    """
    body = json.dumps(given)

    def once() -> None:
        json.dumps(review(json.loads(body)))

    times = [_timed(once) for _ in range(count)]
    return Row(what, count / sum(times), times)


def _timed(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


@contextmanager
def server(core: int) -> Iterator[ssl.SSLContext]:
    """Start the webhook on the CPU core ``core``. Yield a TLS context that trusts its certificate."""
    identity = tls.renewed(None, ["127.0.0.1"], datetime.now(UTC), tls.WEBHOOK)
    with tempfile.TemporaryDirectory(prefix="rft-bench-") as folder:
        Path(folder, "tls.crt").write_text(identity.certificate)
        Path(folder, "tls.key").write_text(identity.key)
        environment = {
            **os.environ,
            "RFT_TLS_FOLDER": folder,
            "RFT_WEBHOOK_BIND": "127.0.0.1",
            "RFT_WEBHOOK_PORT": str(PORT),
            "RFT_HEALTH_PORT": str(HEALTH_PORT),
            "RFT_DRAIN_SECONDS": "0",
        }
        log = Path(folder, "log")
        ours = os.sched_getaffinity(0)
        # A child inherits the affinity, and so does every thread that it starts.
        os.sched_setaffinity(0, {core})
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "rft_operator.webhook"], env=environment, stderr=file
            )
        os.sched_setaffinity(0, ours)
        try:
            while '"serving"' not in log.read_text():
                if process.poll() is not None:
                    raise SystemExit(f"the webhook did not start:\n{log.read_text()}")
                time.sleep(0.05)
            yield ssl.create_default_context(cadata=identity.ca_bundle)
        finally:
            process.terminate()
            process.wait(20)


async def flood(context: ssl.SSLContext, connections: int, count: int) -> Row:
    """Send about ``count`` reviews as fast as possible, over ``connections`` connections.

    Each connection sends its next review as soon as it has the response to the previous review.
    """
    body, times = json.dumps(VALID).encode(), []

    async def one(session: aiohttp.ClientSession) -> None:
        for _ in range(count // connections):
            times.append(await _post(session, body))

    async with _session(context, connections) as session:
        await _post(session, body)
        started = time.perf_counter()
        await asyncio.gather(*(one(session) for _ in range(connections)))
        seconds = time.perf_counter() - started
    return Row(f"as fast as possible, {connections} connections", len(times) / seconds, times)


async def pace(context: ssl.SSLContext, per_second: int, seconds: int) -> Row:
    """Send ``per_second`` reviews in each second, for ``seconds`` seconds. No review waits for earlier
    responses.

    Each review has a planned time. Its duration is measured from the planned time to the response. So if a
    review is sent late, the delay counts too.
    """
    body = json.dumps(VALID).encode()
    async with _session(context, 64) as session:
        await _post(session, body)
        started = time.perf_counter()

        async def one(number: int) -> float:
            due = started + number / per_second
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await _post(session, body)
            return time.perf_counter() - due

        times = list(await asyncio.gather(*(one(i) for i in range(per_second * seconds))))
        took = time.perf_counter() - started
    reached = len(times) / took
    kept = (
        "goal reached"
        if reached >= 0.98 * per_second
        else "goal missed: the webhook could not answer so many reviews"
    )
    return Row(f"{per_second} a second for {seconds} s", reached, times, kept)


def _session(context: ssl.SSLContext, connections: int) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(ssl=context, limit=connections)
    return aiohttp.ClientSession(connector=connector, headers={"Content-Type": "application/json"})


async def _post(session: aiohttp.ClientSession, body: bytes) -> float:
    started = time.perf_counter()
    async with session.post(f"https://127.0.0.1:{PORT}{VALIDATE_PATH}", data=body) as answer:
        said = await answer.json()
        if answer.status != 200 or said["response"]["allowed"] is not True:
            raise SystemExit(f"the webhook responded with {answer.status}: {said}")
    return time.perf_counter() - started


def show(title: str, rows: list[Row]) -> None:
    """Print a table. p50 and p99 are the median and the 99th percentile of the times."""
    print(f"\n{title}\n{'':34}{'reviews/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'reviews':>9}")
    for row in rows:
        cuts = statistics.quantiles(row.times, n=100)
        figures = f"{row.per_second:10.0f}{cuts[49] * 1e3:9.2f}{cuts[98] * 1e3:9.2f}{len(row.times):9}"
        print(f"{row.what:34}{figures}  {row.note}".rstrip())


def _machine() -> str:
    load, nice = os.getloadavg()[0], os.nice(0)
    busy = (
        "; OTHER PROGRAMS RAN OR PRIORITY WAS LOW, so the numbers are only a lower bound"
        if load > 0.5 or nice > 0
        else ""
    )
    return (
        f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"load {load:.1f}, niceness {nice}{busy}"
    )


def main() -> None:
    """Measure how many reviews per second the webhook answers, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=4000, help="number of reviews of each kind")
    parser.add_argument(
        "--seconds", type=int, default=10, help="seconds during which reviews are sent at a fixed rate"
    )
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("the benchmark needs two cores: one for the server, one for the client")
    print(_machine())
    os.sched_setaffinity(0, {cores[1]})
    body = len(json.dumps(VALID))
    rows = [in_process(what, given, options.count) for what, given in REVIEWS.items()]
    show(f"In process, on one core: JSON in, review, JSON out; a review has {body} bytes", rows)
    with server(cores[0]) as context:
        rows = [asyncio.run(flood(context, n, options.count)) for n in (1, 8)]
        rows.append(asyncio.run(pace(context, GOAL, options.seconds)))
    show(f"Over TLS with kept connections: server on core {cores[0]}, client on core {cores[1]}", rows)
    print(
        f"\nGoal: {GOAL} reviews a second on one core; the API server waits at most 5000 ms for a response."
    )


if __name__ == "__main__":
    main()
