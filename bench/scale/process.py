"""Measures the operator's process: its memory, its processor time, and when it is idle."""

import asyncio
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from bench.machine import processor
from tests.integration.operator_support import Operator

QUIET_SECONDS = 6.0
"""The operator counts as idle after this many seconds without a reconciliation."""


def peak_mebibytes(operator: Operator) -> float:
    """Return the operator's peak memory in MiB, since its start or since ``forget_peak``."""
    return _mebibytes(operator, "VmHWM")


def held_mebibytes(operator: Operator) -> float:
    """Return the operator's current memory in MiB."""
    return _mebibytes(operator, "VmRSS")


def _mebibytes(operator: Operator, what: str) -> float:
    lines = Path(f"/proc/{operator.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def forget_peak(operator: Operator) -> None:
    """Reset the operator's peak memory to its current memory."""
    Path(f"/proc/{operator.pid}/clear_refs").write_text("5")


def cpu_seconds(operator: Operator) -> float:
    """Return the operator's processor time since its start, in seconds."""
    fields = Path(f"/proc/{operator.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def quiet(operator: Operator) -> float:
    """Wait until the operator is idle. Return when it last reconciled, in seconds of ``time.time``."""
    before, since = -1.0, time.time()
    while time.time() - since < QUIET_SECONDS:
        await asyncio.sleep(1)
        now = await asyncio.to_thread(operator.metric, "rft_reconciles_total")
        if now != before:
            before, since = now, time.time()
    return since


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the ``percent``-th percentile of ``values``. If there is only one value, return this value."""
    return statistics.quantiles(values, n=100)[percent - 1] if len(values) > 1 else values[0]


def machine() -> str:
    """Return a description of this machine for the results."""
    load, nice = os.getloadavg()[0], os.nice(0)
    busy = (
        "; OTHER PROGRAMS RAN OR PRIORITY WAS LOW, so times are upper bounds"
        if load > 0.5 or nice > 0
        else ""
    )
    cores = f"{processor()}, {os.cpu_count()} cores"
    where = f"{cores}, shared with the API server, etcd, the controllers and the bench"
    return f"{where}; Python {platform.python_version()}, load {load:.1f}, niceness {nice}{busy}"
