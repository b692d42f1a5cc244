"""``python -m tests.interrupted``: interrupt ``make test`` at random moments, and name what stays behind.

By turns it does what Ctrl-C does, a SIGINT to every process of the terminal's group, and what a CI does that
has waited long enough, a SIGTERM to make's group. Run it where nothing else starts processes.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SIGNALS = (signal.SIGINT, signal.SIGTERM)
QUIET_SECONDS = 90.0
"""How long what was started may take to end."""
ENGINES = re.compile(r"docker0|br-[0-9a-f]+|DOCKER|[Dd]ocker")
"""Links, chains and rules of a Docker engine: they stay until the machine restarts."""


def _lines(*command: str) -> set[str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return set()
    return set(done.stdout.splitlines()) if done.returncode == 0 else set()


def containers() -> set[str]:
    """Return the containers of the engine that answers, if one does."""
    return _lines("docker", "ps", "--all", "--format", "{{.Names}}")


def processes() -> set[str]:
    """Return every process with a program, as number and command."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if words.strip():
                found.add(f"{entry.name} {words[:120]}")
    return found


def mounts() -> set[str]:
    """Return the mount points."""
    return {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def namespaces() -> set[str]:
    """Return the network namespaces."""
    return _lines("lsns", "--type", "net", "--noheadings", "--output", "NS")


def links() -> set[str]:
    """Return the network links."""
    return {line.split(":")[1].strip() for line in _lines("ip", "-o", "link")}


def rules() -> set[str]:
    """Return the packet filter's rules, of either kind, without their counters."""
    both = _lines("iptables-save") | _lines("iptables-legacy-save")
    return {re.sub(r"\[\d+:\d+\]", "", line) for line in both if not line.startswith("#")}


KINDS: dict[str, Callable[[], set[str]]] = {
    "container": containers,
    "process": processes,
    "mount": mounts,
    "network namespace": namespaces,
    "link": links,
    "iptables rule": rules,
}


def snapshot() -> dict[str, set[str]]:
    """Return all that a run might leave behind."""
    return {kind: look() for kind, look in KINDS.items()}


def left_behind(before: dict[str, set[str]]) -> Iterator[str]:
    """Yield what is there and was not there before."""
    for kind, look in KINDS.items():
        for one in sorted(look() - before[kind]):
            if kind not in ("link", "iptables rule") or not ENGINES.search(one):
                yield f"{kind}: {one}"


def interrupted(moment: float, number: signal.Signals, log: Path) -> float:
    """Run ``make test`` for so long, interrupt it, and return after how many seconds it had ended."""
    with log.open("wb") as output:
        run = subprocess.Popen(
            ["make", "test"],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            # A shell starts what runs in the background with SIGINT ignored; a terminal does not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            run.wait(moment)
            sys.exit(f"make test ended by itself within {moment:.0f} s: see {log}")
        except subprocess.TimeoutExpired:
            pass
        began = time.monotonic()
        os.killpg(run.pid, number)
        run.wait()
        return time.monotonic() - began


def main() -> int:
    """Interrupt, look, and print a line for each time; 1 when something stayed."""
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
        while (left := list(left_behind(before))) and time.monotonic() < deadline:
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
