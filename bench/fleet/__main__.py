"""``python -m bench.fleet``: starts a control plane and an operator, measures, and prints the table."""

import argparse
import asyncio
import json
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import bench.fleet
from bench.fleet import measure
from bench.fleet.kueue import QUEUE, rendered, start_kueue
from bench.fleet.programs import KUEUE, KWOK, PLANE, Missing, chart, found
from bench.fleet.stages import write
from bench.fleet.table import Figures, today
from bench.fleet.watching import ALWAYS, QUEUED, Times, watching
from bench.machine import commit
from bench.scale.api import NAMESPACE, Api
from bench.scale.audit import Audit
from bench.scale.process import held_mebibytes, machine
from bench.scale.server import prepare
from tests.cluster.control_plane import ControlPlane, Further, running, start
from tests.cluster.shell import ClusterError, run
from tests.integration.operator_support import Operator
from tests.ports import free_port

OPERATOR = "rft-operator"
ENDS_PER_SECOND = 40.0
"""How many pods per second the benchmark lets succeed, on average, while it measures the end of jobs."""
FURTHER = Further(
    server=(
        # As on GKE: a pod that requests GPUs gets a toleration for the taint of GPU nodes.
        "--enable-admission-plugins=ExtendedResourceToleration",
        "--audit-log-maxsize=100000",  # the default starts a new file after 100 MB
    ),
    manager=(
        # There are no kubelets, so no node sends heartbeats.
        "--node-monitor-grace-period=12h",
        "--node-startup-grace-period=12h",
        "--node-monitor-period=1m",
    ),
    etcd=("--quota-backend-bytes=8589934592",),
    audited=({"level": "Metadata", "users": [OPERATOR]}, {"level": "None"}),
)
SCHEDULER = {
    "apiVersion": "kubescheduler.config.k8s.io/v1",
    "kind": "KubeSchedulerConfiguration",
    "leaderElection": {"leaderElect": False},
    "clientConnection": {"qps": 400, "burst": 800},
    "profiles": [
        {
            "schedulerName": "default-scheduler",
            # No volume is ever bound in this benchmark, so the scheduler must not wait for volumes.
            "plugins": {
                "multiPoint": {
                    "disabled": [
                        {"name": name}
                        for name in ("VolumeBinding", "VolumeZone", "NodeVolumeLimits", "VolumeRestrictions")
                    ]
                }
            },
        }
    ],
}


def start_scheduler(plane: ControlPlane, program: Path, stack: ExitStack) -> None:
    """Start kube-scheduler. It is stopped when ``stack`` closes."""
    login = plane.login("scheduler", "system:kube-scheduler")
    config = SCHEDULER | {"clientConnection": {**SCHEDULER["clientConnection"], "kubeconfig": str(login)}}  # type: ignore[dict-item]
    path = plane.folder / "scheduler.yaml"
    path.write_text(json.dumps(config))
    options = [f"--config={path}", "--bind-address=127.0.0.1", f"--secure-port={free_port()}"]
    start(stack, plane.folder, [str(program), *options])


@contextmanager
def kwok(plane: ControlPlane, program: Path, stages: Path) -> Iterator[None]:
    """Run kwok with ``stages`` during the ``with`` block."""
    options = [
        f"--kubeconfig={plane.kubeconfig}",
        f"--config={stages}",
        "--manage-all-nodes=true",
        "--node-lease-duration-seconds=0",
        f"--server-address=127.0.0.1:{free_port()}",
    ]
    with ExitStack() as stack:
        start(stack, plane.folder, [str(program), *options])
        yield


async def run_all(
    plane: ControlPlane,
    operator: Operator,
    programs: dict[str, Path],
    options: argparse.Namespace,
    figures: Figures,
) -> None:
    """Make all measurements of the operator, and add the results to ``figures``."""
    with ExitStack() as stack:
        start_scheduler(plane, programs["kube-scheduler"], stack)
        async with Api(plane) as api:
            await prepare(api)
            print(f"{options.nodes} fake nodes are created", flush=True)
            await measure.make_nodes(api, options.nodes)
            await asyncio.to_thread(operator.start)
            figures.add("the operator's memory before any job exists", f"{held_mebibytes(operator):.0f} MiB")
            fleet = measure.Fleet(api, operator, Times(), Audit(plane.audit_log), figures)
            async with watching(api, fleet.times, ALWAYS):
                await _phases(fleet, plane, programs, options, stack)
    measure.summary(figures)


async def _phases(
    fleet: measure.Fleet,
    plane: ControlPlane,
    programs: dict[str, Path],
    options: argparse.Namespace,
    stack: ExitStack,
) -> None:
    with kwok(plane, programs[KWOK], write(plane.folder, ending_seconds=None)):
        await measure.measure_start(fleet, options.jobs)
        await measure.measure_rest(fleet, options.idle)
        if options.reports:
            await measure.measure_reports(
                fleet, min(options.reports, options.jobs), options.every, options.rounds
            )
        await measure.measure_restart(fleet, options.jobs)
    seconds = max(10.0, options.jobs / ENDS_PER_SECOND)
    with kwok(plane, programs[KWOK], write(plane.folder, ending_seconds=seconds)):
        await measure.measure_ends(fleet, options.jobs, seconds)
    if options.queued:
        await start_kueue(fleet.api, plane, programs[KUEUE], stack)
        seconds = max(10.0, options.queued / ENDS_PER_SECOND)
        with kwok(plane, programs[KWOK], write(plane.folder, ending_seconds=seconds)):
            async with watching(fleet.api, fleet.times, QUEUED):
                await measure.measure_queued(fleet, options.queued, QUEUE)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=bench.fleet.__doc__)
    parser.add_argument("--nodes", type=int, default=5000, help="number of fake nodes")
    parser.add_argument("--jobs", type=int, default=5000, help="number of RFTJobs")
    parser.add_argument(
        "--queued",
        type=int,
        default=1000,
        help="number of further RFTJobs in a Kueue queue; 0: without Kueue",
    )
    parser.add_argument("--reports", type=int, default=200, help="number of RFTJobs that send reports")
    parser.add_argument("--every", type=float, default=5, help="seconds between two reports of a job")
    parser.add_argument("--rounds", type=int, default=6, help="number of reports of each job")
    parser.add_argument(
        "--idle", type=float, default=60, help="seconds to measure the operator while nothing changes"
    )
    parser.add_argument("--workers", type=int, default=8, help="RFT_WORKERS of the operator")
    parser.add_argument("--logs", type=Path, help="keep the logs of all programs in this folder")
    return parser.parse_args()


def _programs(options: argparse.Namespace) -> dict[str, Path]:
    """Return the paths of the programs.

    Raises:
        Missing, ClusterError: a program is not found.
    """
    programs = found([*PLANE, KWOK, *([KUEUE] if options.queued else [])])
    folders = {programs[name].parent for name in PLANE[1:]}
    if len(folders) > 1:
        raise Missing(
            f"{', '.join(PLANE[1:])} must be in the same folder, but are in {', '.join(map(str, folders))}"
        )
    if options.queued:
        chart()
        rendered()  # if helm cannot be downloaded, fail before anything is started
    return programs


def main() -> int:
    """Read the command-line options, and run the benchmark. Return 2 if a program is missing."""
    options = _options()
    try:
        programs = _programs(options)
    except (Missing, ClusterError) as error:
        print(f"bench-fleet: {error}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 65536)), hard))
    binaries = programs["kube-apiserver"].parent
    version = run(binaries / "kube-apiserver", "--version").strip()
    about = f"{machine()}; {version}; commit {commit()}, {today()}"
    print(about, flush=True)
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="rft-fleet-") as name:
        folder = Path(name)
        try:
            with running(binaries, folder, FURTHER) as plane:
                _with_operator(plane, programs, options, figures)
        finally:
            # Print the table also after a failure: the results until then are useful.
            print(
                f"\n`python -m bench.fleet {' '.join(sys.argv[1:])}`: {about}\n\n{figures.table()}",
                flush=True,
            )
            if options.logs is not None:
                shutil.copytree(folder / "logs", options.logs, dirs_exist_ok=True)
    return 0


def _with_operator(
    plane: ControlPlane, programs: dict[str, Path], options: argparse.Namespace, figures: Figures
) -> None:
    operator = Operator(
        plane.login(OPERATOR, OPERATOR, "system:masters"),
        NAMESPACE,
        plane.folder / "logs" / "operator.log",
        everywhere=True,
        RFT_WORKERS=str(options.workers),
        RFT_LEASE_SECONDS="100",  # a busy machine is slow to renew the Lease
        MALLOC_ARENA_MAX="2",  # the same variable as in the operator's image
    )
    try:
        asyncio.run(run_all(plane, operator, programs, options, figures))
    finally:
        operator.kill()


if __name__ == "__main__":
    sys.exit(main())
