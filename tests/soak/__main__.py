"""``python -m tests.soak``: runs rounds for some minutes, and prints the worst values of all rounds."""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from rft_operator.cluster import connect
from tests.cluster.build import server_binaries
from tests.cluster.control_plane import running
from tests.cluster.layout import default_layout
from tests.integration.operator_support import RFTJOBS, Api, Operator, Run, install_crd
from tests.integration.proxy_support import CLOSED, Proxy, answer
from tests.waiting import wait_until

NAMESPACES = ("soak-home", "soak-one", "soak-two", "soak-three")
"""The namespaces that the operator serves. Its Lease is in the first one."""
LATE_SECONDS = 60.0
"""A new RFTJob must have a phase within this many seconds, if no request in its namespace is refused."""
STOP_SECONDS = 10.0
GROWN_MEBIBYTES = 40.0
"""Maximum growth in MiB of the memory of one operator process after its first round."""
LEASE_SECONDS = 100
START_SECONDS = 60.0
FAULT_SECONDS = (5.0, 40.0)
ROUNDS_PER_STOP = 6
ANSWERS = {"403": answer(403), "404": answer(404), "503": answer(503), "closed": CLOSED}
WATCH_ERROR = answer(
    200,
    {"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "etcdserver: no leader"}},
)
SPEC = {
    "model": {"name": "/models/SmolLM2-135M"},
    "dataset": {"configMap": {"name": "rows"}},
    "graders": [{"name": "right", "numeric": {}}],
    "storage": {"persistentVolumeClaim": {"claimName": "runs"}},
    "resources": {"accelerator": {"name": "cpu"}},
}


@dataclass(frozen=True)
class Fault:
    """A fault: what the API server does wrong for some seconds, and in which namespaces."""

    name: str
    touched: tuple[str, ...]
    """The namespaces in which this fault makes the proxy refuse the operator's requests."""
    instead: bytes | None = None
    """The proxy's response to a request that it refuses. None: the proxy refuses no request."""
    delay: float = 0.0
    """Seconds that the proxy waits before it forwards each part of a response, in all namespaces."""
    in_watches: bool = False
    """Whether only watches are answered with ``instead``, in all namespaces."""

    def begin(self, proxy: Proxy) -> None:
        """Begin the fault: make the proxy refuse requests, or delay the responses of the API server.

        Requests for the Lease are never refused, because without its Lease the operator would end.
        """
        proxy.delay = self.delay
        if self.instead is not None:
            text = f"/namespaces/{self.touched[0]}/" if len(self.touched) == 1 else ""
            proxy.refuse("watch=true" if self.in_watches else text, self.instead, but="/leases/")


def drawn(dice: random.Random) -> Fault:
    """Return a random fault.

    The fault refuses requests in one namespace or in all namespaces, delays each part of a response, or
    answers each watch with an error event.
    """
    kind = dice.choice(("namespace", "namespace", "all", "delay", "watch"))
    if kind == "watch":
        return Fault("an error event in every watch", (), WATCH_ERROR, in_watches=True)
    if kind == "delay":
        seconds = dice.uniform(0.2, 2.0)
        return Fault(f"all answers {seconds:.1f} s late", (), delay=seconds)
    how = dice.choice(sorted(ANSWERS))
    if kind == "all":
        return Fault(f"everything {how}", NAMESPACES, ANSWERS[how])
    return Fault(f"one namespace {how}", (dice.choice(NAMESPACES[1:]),), ANSWERS[how])


@dataclass
class Soak:
    """Runs the rounds, and keeps the worst value of each measurement."""

    api: Api
    proxy: Proxy
    operator: Operator
    dice: random.Random
    jobs: int = 0
    """Number of RFTJobs that were created."""
    late: float = 0.0
    """The longest time in seconds until an RFTJob had a phase."""
    stops: list[float] = field(default_factory=list)
    """Seconds that each stop of the operator took."""
    codes: set[int] = field(default_factory=set)
    """Exit codes of the operator."""
    began_with: float = 0.0
    """Memory in MiB that the current operator process used at the end of its first round. 0 before."""
    grown: float = 0.0
    """The largest growth in MiB of the memory of an operator process after its first round."""

    def round(self, number: int) -> None:
        """Run one round: inject one fault, and create jobs during the fault and after it."""
        fault, seconds = drawn(self.dice), self.dice.uniform(*FAULT_SECONDS)
        free = [name for name in NAMESPACES if name not in fault.touched]
        fault.begin(self.proxy)
        until = time.monotonic() + seconds
        waits = []
        while time.monotonic() < until:
            if free:
                waits.append(self.serve(self.dice.choice(free)))
            time.sleep(self.dice.uniform(1, 5))
        stopped = self.stop() if number % ROUNDS_PER_STOP == 0 else None
        self.proxy.accept()
        self.proxy.delay = 0.0
        if stopped is not None:
            self.start()
        waits.append(self.serve(fault.touched[-1] if fault.touched else NAMESPACES[0]))
        held = self.held()
        self.began_with = self.began_with or held
        self.grown = max(self.grown, held - self.began_with)
        said = f", stopped in {stopped:.1f} s" if stopped is not None else ""
        print(
            f"{number:3}  {fault.name} for {seconds:.0f} s: {len(waits)} jobs, each seen within"
            f" {max(waits):.1f} s; {held:.0f} MiB{said}",
            flush=True,
        )

    def serve(self, namespace: str) -> float:
        """Create an RFTJob, wait until it has a phase, and delete it. Return the waiting time in seconds."""
        there = Api(self.api._cluster, namespace)
        self.jobs += 1
        made = {
            "apiVersion": "rft.dev/v1alpha1",
            "kind": "RFTJob",
            "metadata": {"name": f"job-{self.jobs}"},
            "spec": SPEC,
        }
        began = time.monotonic()
        run = Run(there, there.create(RFTJOBS, json.loads(json.dumps(made))))
        wait_until(f"{namespace}/{run.name} has a phase", lambda: run.status.get("phase"), 2 * LATE_SECONDS)
        took = time.monotonic() - began
        self.late = max(self.late, took)
        there.delete(RFTJOBS, run.name)
        self.operator.check()
        return took

    def start(self) -> None:
        """Start a new operator process, and wait until its ingest accepts connections.

        If the previous process was stopped during a fault, it may not have released its Lease. Then the new
        process waits until the Lease has expired.
        """
        self.operator.launch()
        wait_until("the operator listens", self.operator.listens, LEASE_SECONDS + START_SECONDS)
        self.began_with = 0.0

    def stop(self) -> float:
        """Send a stop signal to the operator. Return the seconds until it has ended."""
        began = time.monotonic()
        self.operator.send(signal.SIGTERM)
        self.codes.add(self.operator.wait(60))
        self.stops.append(time.monotonic() - began)
        return self.stops[-1]

    def held(self) -> float:
        """Return the resident memory of the operator in MiB."""
        lines = Path(f"/proc/{self.operator.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    def verdict(self) -> bool:
        """Print the worst value of each measurement. Return whether all are within their limits."""
        print(f"jobs created                  {self.jobs}")
        print(f"longest wait for a phase      {self.late:.1f} s, allowed {LATE_SECONDS:.0f}")
        print(f"most memory growth            {self.grown:.0f} MiB, allowed {GROWN_MEBIBYTES:.0f}")
        slowest = max(self.stops)
        print(f"longest stop, of {len(self.stops)}            {slowest:.1f} s, allowed {STOP_SECONDS:.0f}")
        print(f"exit codes                    {sorted(self.codes)}")
        return self.late <= LATE_SECONDS and self.grown <= GROWN_MEBIBYTES and max(self.stops) <= STOP_SECONDS


def prepared(kubeconfig: Path) -> Api:
    """Create the CRD and ``NAMESPACES``. Return an ``Api`` for the first of them."""
    api = Api(connect(str(kubeconfig)), NAMESPACES[0])
    install_crd(api)
    for name in NAMESPACES:
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        api.call("POST", "api/v1/namespaces", made)
    return api


def main() -> int:
    """Run rounds until the time is over. Return 1 if a value is above its limit."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="duration of the test in minutes")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random faults")
    parser.add_argument("--log", type=Path, help="keep the operator's log in this file")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="rft-soak-") as name:
        folder = Path(name)
        with running(server_binaries(default_layout().cache), folder) as plane:
            api, proxy = prepared(plane.kubeconfig), Proxy(plane.kubeconfig)
            operator = Operator(
                proxy.kubeconfig(folder / "operator.kubeconfig"),
                NAMESPACES[0],
                options.log or folder / "operator.log",
                everywhere=True,
                RFT_WATCH_NAMESPACES=",".join(NAMESPACES),
                RFT_LEASE_SECONDS=str(LEASE_SECONDS),  # a delay of some seconds must not end the process
            )
            soak = Soak(api, proxy, operator, random.Random(options.seed))
            try:
                soak.start()
                end, number = time.monotonic() + 60 * options.minutes, 0
                while time.monotonic() < end or not soak.stops:
                    number += 1
                    soak.round(number)
            finally:
                operator.kill()
                proxy.close()
    return 0 if soak.verdict() else 1


if __name__ == "__main__":
    sys.exit(main())
