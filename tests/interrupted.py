"""``python -m tests.interrupted``: interrupts ``make test`` at random moments; prints what it leaves behind.

Two interruptions alternate: SIGINT to every process of the terminal's group, like Ctrl-C, and SIGTERM to
make's process group, like a CI timeout. Run it on a machine where nothing else starts processes.
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
"""Maximum seconds for the started processes to end after the interruption."""
ENGINES = re.compile(r"docker0|br-[0-9a-f]+|DOCKER|[Dd]ocker")
"""Links, routes, rules and cgroups of a Docker engine. They remain until the machine restarts."""
OF_ENGINES = ("links", "routes", "iptables rules", "cgroups")


def containers() -> list[str]:
    """Return the containers of the Docker engine, if one answers."""
    if not succeeds("docker", "info"):
        return []
    return run("docker", "ps", "--all", "--format", "{{.Names}}").splitlines()


def processes() -> list[str]:
    """Return every process that has a command line, except this one, as PID and command."""
    found = []
    for pid in all_processes():
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if words.strip() and pid != os.getpid():
                found.append(f"{pid} {words[:120]}")
    return found


def snapshot() -> leftovers.Snapshot:
    """Return everything that a run could leave behind: a node's parts, containers, and processes."""
    node = leftovers.snapshot(default_layout())
    return {**node, "containers": containers(), "processes": processes()}


def left_behind(before: leftovers.Snapshot) -> list[str]:
    """Return what exists now and did not exist before, without the Docker engine's own parts."""
    found = leftovers.differences(before, snapshot())
    return [line for line in found if not (line.startswith(OF_ENGINES) and ENGINES.search(line))]


def interrupted(moment: float, number: signal.Signals, log: Path) -> float:
    """Run ``make test``, interrupt it after ``moment`` seconds, and return the seconds until it has ended."""
    with log.open("wb") as output:
        started = subprocess.Popen(
            ["make", "test"],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            # A shell starts background processes with SIGINT ignored, a terminal does not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            started.wait(moment)
            sys.exit(f"make test ended by itself within {moment:.0f} s: see {log}")
        except subprocess.TimeoutExpired:
            pass
        began = time.monotonic()
        os.killpg(started.pid, number)
        started.wait()
        return time.monotonic() - began


def main() -> int:
    """Interrupt repeatedly, and print a line for each time. Returns 1 if anything was left behind."""
    options = _parser().parse_args()
    draw = random.Random(options.seed)
    failed = False
    print("| interrupted by | after | ended within | left behind |")
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
    parser.add_argument("--times", type=int, default=10, help="how often (default 10)")
    parser.add_argument("--latest", type=float, default=600, help="seconds, at most (default 600)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument("--log", type=Path, default=Path("/tmp/rft-interrupted.log"), help="of make test")
    return parser


if __name__ == "__main__":
    sys.exit(main())
