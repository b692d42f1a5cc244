"""``python3 -m tests.cluster``: starts, stops and inspects the test cluster."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from tests.cluster.kubernetes import Kubernetes
from tests.cluster.layout import Layout, default_layout
from tests.cluster.leftovers import compare_with_saved
from tests.cluster.provider import choose_provider
from tests.cluster.shell import ClusterError
from tests.cluster.tools import helm, kubectl


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Return the exit status: 1 if the command failed, 2 for wrong usage."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        return _dispatch(options, default_layout())
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _dispatch(options: argparse.Namespace, layout: Layout) -> int:
    if options.command == "tools":
        kubectl(layout.tools)
        helm(layout.tools)
        print(layout.tools)
        return 0
    if options.command == "check-clean":
        return compare_with_saved(layout)
    provider = choose_provider(layout)
    match options.command:
        case "up":
            provider.up()
            print(provider.kubeconfig)
        case "down":
            provider.down()
        case "load-image":
            provider.load_images(options.archives)
        case "kubeconfig":
            print(provider.kubeconfig)
        case "status":
            print(json.dumps({**provider.describe(), "kubeconfig": str(provider.kubeconfig)}, indent=2))
        case "ingest-ip":
            print(provider.describe().get("ingest_ip", ""))
        case "set-gpus":
            Kubernetes(layout, provider.kubeconfig).set_gpus(options.count)
        case "renew-volumes":
            for name in Kubernetes(layout, provider.kubeconfig).renew_volumes():
                print(name)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "up", help="start the cluster unless it is running, and print the path of its kubeconfig"
    )
    commands.add_parser("down", help="stop the cluster and remove all its files except the logs")
    commands.add_parser(
        "status", help="print the cluster's addresses and paths as JSON; fail if it is not running"
    )
    commands.add_parser("kubeconfig", help="print the path of the kubeconfig")
    commands.add_parser(
        "ingest-ip",
        help="print the ClusterIP for the operator's Service, or nothing if the cluster has DNS",
    )
    load = commands.add_parser("load-image", help="load docker or OCI archives")
    load.add_argument("archives", nargs="+", type=Path, metavar="ARCHIVE")
    gpus = commands.add_parser(
        "set-gpus", help="set the number of nvidia.com/gpu on every schedulable node; 0 removes them"
    )
    gpus.add_argument("count", type=int, metavar="N")
    commands.add_parser("renew-volumes", help="empty the volumes whose claim was deleted, for new claims")
    commands.add_parser(
        "tools", help="download kubectl and helm unless they are on the PATH, and print their folder"
    )
    commands.add_parser(
        "check-clean", help="print what differs on this machine from the state before the last `up`"
    )
    return parser


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt when a signal arrives, so that ``up`` removes a half-started cluster.

    Background jobs of a shell ignore SIGINT. Python sets no handler of its own for an ignored signal.
    """
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
