"""``python -m tests.skew COMMIT…``: lets this release and others continue each other's runs and jobs.

Prints a table. The exit code is 1 if this release does not continue what another one began, or if another one
does not continue what this release began and is not named by ``--forward-only``.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.cluster.build import server_binaries
from tests.cluster.control_plane import running
from tests.cluster.layout import default_layout
from tests.integration.operator_support import Api
from tests.skew import operators, runs
from tests.skew.releases import Release, release_of, this_release


def main() -> int:
    """Check each other release: whether this release continues what that one began, and the reverse.

    Return the exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tests.skew", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commits", nargs="*", default=["c5ea54e"], help="other releases (default c5ea54e)")
    parser.add_argument(
        "--forward-only",
        action="append",
        default=[],
        metavar="COMMIT",
        help="a release that need not continue what this release began; may be repeated",
    )
    options = parser.parse_args()
    wrong = False
    with tempfile.TemporaryDirectory(prefix="rft-skew-") as name:
        folder = Path(name)
        this = this_release()
        binaries = server_binaries(default_layout().cache)
        (folder / "server").mkdir()
        with running(binaries, folder / "server") as plane:
            api = operators.prepared(plane.kubeconfig)
            print("| begun by | continued by | what | result |\n|---|---|---|---|", flush=True)
            for commit in options.commits:
                other = release_of(commit, folder / commit)
                forward = _continues(other, this, folder, api, plane.kubeconfig)
                back = _continues(this, other, folder, api, plane.kubeconfig)
                wrong = wrong or not forward or not (back or commit in options.forward_only)
    return 1 if wrong else 0


def _continues(writer: Release, reader: Release, folder: Path, api: Api, kubeconfig: Path) -> bool:
    """Print a row for a run, and one for an RFTJob. Return whether ``reader`` continues both."""
    place, log = folder / f"{writer.name}-{reader.name}", folder / "operator.log"
    checks: dict[str, Callable[[], None]] = {
        "run": partial(runs.continued, writer, reader, place),
        "RFTJob": partial(operators.continued, writer, reader, api, kubeconfig, log),
    }
    passed = [_said(writer, reader, what, check) for what, check in checks.items()]
    return all(passed)


def _said(writer: Release, reader: Release, what: str, check: Callable[[], None]) -> bool:
    """Run a check and print its row. Return whether it passed."""
    try:
        check()
    except AssertionError as error:
        first, *rest = str(error).splitlines() or ["failed"]
        print("\n".join(rest), file=sys.stderr)
        print(f"| {writer.name} | {reader.name} | {what} | {first} |", flush=True)
        return False
    print(f"| {writer.name} | {reader.name} | {what} | continues |", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
