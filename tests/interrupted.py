"""``python -m tests.interrupted``: interrupts ``make test`` at random moments, and prints what remains.

Every second interruption is a SIGINT, which Ctrl-C in a terminal sends. The others are a SIGTERM, which a CI
system sends after a timeout. The signal goes to make's process group. Run this program only on a machine on
which nothing else starts processes, because it reports every new process as left behind.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.cluster import leftovers
from tests.cluster.layout import default_layout
from tests.cluster.processes import all_processes
from tests.cluster.shell import run, succeeds

ROOT = Path(__file__).parents[1]
SIGNALS = (signal.SIGINT, signal.SIGTERM)
QUIET_SECONDS = 90.0
"""After ``make test`` was interrupted and make has ended, nothing may be left after this many seconds."""
ENGINES = re.compile(r"docker0|br-[0-9a-f]+|DOCKER|[Dd]ocker")
"""Matches the names of network links, routes, iptables rules and cgroups that Docker creates for itself.

Docker keeps these things when its containers are gone. So ``make test`` has not left them behind.
"""
OF_ENGINES = ("links", "routes", "iptables rules", "cgroups")


def containers() -> list[str]:
    """Return the names of all containers, or [] if no Docker engine answers."""
    if not succeeds("docker", "info"):
        return []
    return run("docker", "ps", "--all", "--format", "{{.Names}}").splitlines()


def processes() -> list[str]:
    """Return PID and command of every process with a command line, except for this process."""
    found = []
    for pid in all_processes():
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if words.strip() and pid != os.getpid():
                found.append(f"{pid} {words[:120]}")
    return found


def snapshot() -> leftovers.Snapshot:
    """Return all that ``make test`` could leave behind: containers, processes, and what a node creates."""
    node = leftovers.snapshot(default_layout())
    return {**node, "containers": containers(), "processes": processes()}


def left_behind(before: leftovers.Snapshot) -> list[str]:
    """Return what exists now and is not in ``before``, except for what Docker creates for itself."""
    found = leftovers.differences(before, snapshot())
    return [line for line in found if not (line.startswith(OF_ENGINES) and ENGINES.search(line))]


def interrupted(moment: float, number: signal.Signals, log: Path) -> float:
    """Start ``make test``, and send it a signal after ``moment`` seconds.

    Return the seconds from the signal until make has ended.
    """
    with log.open("wb") as output:
        started = subprocess.Popen(
            ["make", "test"],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            # If this program runs in the background of a shell, it ignores SIGINT. make must not ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            started.wait(moment)
            sys.exit(f"make test ended before it was interrupted, within {moment:.0f} s: see {log}")
        except subprocess.TimeoutExpired:
            pass
        began = time.monotonic()
        os.killpg(started.pid, number)
        started.wait()
        return time.monotonic() - began


def main() -> int:
    """Interrupt ``make test`` repeatedly, and print a line each time. Return 1 if anything is left."""
    options = _parser().parse_args()
    draw = random.Random(options.seed)
    failed = False
    print("| signal | sent after the start | ended after the signal | what remained |")
    print("|---|--:|--:|---|", flush=True)
    for number in range(options.times):
        before = snapshot()
        moment, sent = draw.uniform(2.0, options.latest), SIGNALS[number % len(SIGNALS)]
        took = interrupted(moment, sent, options.log)
        deadline = time.monotonic() + QUIET_SECONDS
        while (left := left_behind(before)) and time.monotonic() < deadline:
            time.sleep(1)
        failed = failed or bool(left)
        print(f"| {sent.name} | {moment:.0f} s | {took:.0f} s | {'; '.join(left) or 'nothing'} |", flush=True)
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.interrupted", description=__doc__)
    parser.add_argument("--times", type=int, default=10, help="number of interruptions (default 10)")
    parser.add_argument(
        "--latest", type=float, default=600, help="latest moment of an interruption, in seconds (default 600)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed for the random moments (default 0)")
    parser.add_argument(
        "--log", type=Path, default=Path("/tmp/rft-interrupted.log"), help="file for the output of make test"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
