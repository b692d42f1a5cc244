"""``python3 -m tests.cluster``: start, stop and look at the test cluster."""

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
    """Run one command; return the exit status (1: it failed, 2: wrong usage)."""
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
    commands.add_parser("up", help="start the cluster if need be and print its kubeconfig's path")
    commands.add_parser("down", help="stop it and remove every trace but its logs")
    commands.add_parser("status", help="print addresses and paths as JSON; fail if it is down")
    commands.add_parser("kubeconfig", help="print the kubeconfig's path")
    commands.add_parser("ingest-ip", help="print a ClusterIP to pin, where the cluster has no DNS")
    load = commands.add_parser("load-image", help="load docker or OCI archives")
    load.add_argument("archives", nargs="+", type=Path, metavar="ARCHIVE")
    gpus = commands.add_parser(
        "set-gpus", help="let every node that takes pods offer so many nvidia.com/gpu; 0: none any more"
    )
    gpus.add_argument("count", type=int, metavar="N")
    commands.add_parser("renew-volumes", help="empty the released volumes and offer them again")
    commands.add_parser("tools", help="print the folder of the tools that the PATH lacks, fetched if need be")
    commands.add_parser("check-clean", help="compare the machine with the state before the last up")
    return parser


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise, so that a half-started cluster is removed; background jobs ignore SIGINT without a handler."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
