"""``python -m tests.modern build`` finds or builds a current API server; ``run`` also starts it."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from tests.cluster.layout import default_layout
from tests.cluster.shell import ClusterError
from tests.modern.build import modern_server
from tests.modern.server import running


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.modern", description=__doc__)
    parser.add_argument("command", choices=("build", "run"))
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        binaries = modern_server(default_layout().cache)
        if options.command == "build":
            print(binaries)
            return 0
        with tempfile.TemporaryDirectory() as folder, running(binaries, Path(folder)) as server:
            print(f"{server.url} {folder}/kubeconfig", flush=True)
            signal.pause()
    except ClusterError as error:
        print(f"modern: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, so that the server is stopped and its folder is removed."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
