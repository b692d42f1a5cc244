"""The grader process: runs users' code for a trainer that listens on a Unix socket.

    python -m rft_graders.serve --socket PATH --config FILE [--wait SECONDS]

In a pod this process runs in the grader container. On a local machine the trainer starts it, and gives it a
connected socket with ``--descriptor`` instead of ``--socket``.

The exit code is 0 if the connection to the trainer has ended, or if SIGTERM came before there was a
connection. It is 1 if no trainer was found within SECONDS, or if the configuration cannot be read.
"""

import argparse
import contextlib
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rft_graders.confinement import set_dumpable
from rft_graders.pool import Log, Pool
from rft_graders.processes import adopt_orphans
from rft_graders.protocol import MAX_REQUEST_BYTES, Closed, LineReader, ProtocolError, encode
from rft_graders.watchdog import Children, Watchdog
from rft_run import wire
from rft_run.config import GRADER_CONFIG_DIR, GRADER_CONFIG_FILE, GRADER_SOCKET, GraderConfig

RETRY_SECONDS = 0.2


def connect(path: str, wait_seconds: float) -> socket.socket | None:
    """Connect to the trainer's Unix socket at ``path``, with retries, and return the connection.

    Return None after ``wait_seconds`` without success.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(path)
            return connection
        except OSError:  # the socket does not exist yet, or nobody listens yet
            connection.close()
        if time.monotonic() >= deadline:
            return None
        time.sleep(RETRY_SECONDS)


def serve(connection: socket.socket, config: GraderConfig, home: Path, log: Log) -> None:
    """Run the graders in ``config``, and answer the trainer's requests for scores. Return when the trainer
    closes the connection or breaks the protocol.

    ``home``: the folder in which each worker process gets its home folder.
    """
    writing = threading.Lock()

    def reply(message: dict[str, Any]) -> None:
        # Errors are ignored here: the reader notices that the trainer has ended.
        with writing, contextlib.suppress(OSError):
            connection.sendall(encode(message))

    adopt_orphans()
    children = Children()
    Watchdog(children, config.max_processes, config.memory_mebibytes * 2**20).start()
    try:
        pool = Pool(config, home, children, reply, log)
        # Code is loaded in a thread, because the reader must notice at once when the trainer ends during this
        # time.
        threading.Thread(target=lambda: reply({"graders": pool.load()}), daemon=True).start()
        reader = LineReader(connection, MAX_REQUEST_BYTES)
        with contextlib.suppress(Closed, ProtocolError, KeyError):
            while True:
                pool.submit(reader.read(None))
    finally:
        children.kill_all()


def main(argv: list[str] | None = None) -> int:
    """Run the grader process with the command line arguments ``argv`` (None: those of this process). Return
    the exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m rft_graders.serve")
    parser.add_argument("--socket", default=GRADER_SOCKET, help="path of the trainer's listening socket")
    parser.add_argument(
        "--descriptor", type=int, help="file descriptor of a connected socket, instead of --socket"
    )
    parser.add_argument("--config", type=Path, default=Path(GRADER_CONFIG_DIR) / GRADER_CONFIG_FILE)
    parser.add_argument("--wait", type=float, default=300.0, help="seconds to wait for the trainer")
    arguments = parser.parse_args(argv)
    set_dumpable(False)  # before any of users' code runs, which has the same UID
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        config = wire.read(GraderConfig, arguments.config.read_bytes())
    except (OSError, ValidationError) as error:
        print(f"cannot read the configuration {arguments.config}: {error}", file=sys.stderr)
        return 1
    connection: socket.socket | None
    if arguments.descriptor is not None:
        connection = socket.socket(fileno=arguments.descriptor)
        connection.set_inheritable(False)
    else:
        connection = connect(arguments.socket, arguments.wait)
    if connection is None:
        print(f"no trainer listened on {arguments.socket} within {arguments.wait:g} s", file=sys.stderr)
        return 1
    # When the pod is deleted, both containers get SIGTERM. The trainer may still need scores; it closes the
    # connection when it needs no more. A handler is set because child processes would inherit an ignored
    # signal.
    signal.signal(signal.SIGTERM, lambda *_: None)
    home = Path(tempfile.mkdtemp(prefix="rft-grader-"))
    try:
        with connection:
            # The level of confinement is logged only in a pod. In a local run the user would see these lines.
            serve(connection, config, home, Log(says_levels=arguments.descriptor is None))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
