"""Finds the folder of a run from a command's argument. The folder of a job in the cluster is downloaded
first.
"""

import re
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rft_cli.errors import UNREADABLE, UserError
from rft_cli.local.brought import write_records
from rft_cli.local.process import STOP_SIGNALS
from rft_cli.local.received import receive
from rft_cli.options import connect
from rft_cli.render.console import err

_JOB_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")

Fetch = Callable[[Sequence[str]], Path]
"""A function that copies the files that some ``fnmatch`` patterns match, and returns the folder with the
copies."""

Choose = Callable[[list[str], Fetch], None]
"""A function that decides which files of a job's folder a command needs. It gets the paths of the files and a
function ``Fetch``, which it calls for the files that are needed."""


@contextmanager
def run_folder(
    source: str,
    context: str | None,
    namespace: str | None,
    image: str | None,
    patterns: Sequence[str],
    choose: Choose,
) -> Iterator[Path]:
    """Yield the folder of a run: ``source`` itself, if it is a folder on this machine.

    Otherwise ``source`` is the name of a job in the cluster. Then files of the job's folder are copied into a
    temporary folder, and this folder is yielded.

    - ``image``: the image of the pod that reads the job's volume; None: the image of the job
    - ``patterns``: ``fnmatch`` patterns of the files that the command may need
    - ``choose``: gets the paths of these files, and fetches those that it needs. Only these are copied.

    Raises:
        UserError: if there is no such folder or job, or the job's folder cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        yield path
        return
    if not _JOB_NAME.fullmatch(source):
        raise UserError(f"{source}: there is no such folder", UNREADABLE)
    cluster = connect(context, namespace)
    # Imported here, because the kubernetes client takes a second, which folders on this machine do not need.
    from rft_cli.cluster.volume import volume_of

    job = cluster.job(source)
    with tempfile.TemporaryDirectory(prefix="rft-") as folder:
        files = 0
        with ended_by_signals(), volume_of(cluster, job, image, err().print) as volume:

            def fetch(wanted: Sequence[str]) -> Path:
                nonlocal files
                files += receive(volume, wanted, Path(folder)).files
                return Path(folder)

            choose(volume.names(patterns), fetch)
        err().print(f"{source}: {files} files of the job's volume were read")
        write_records(Path(folder), job)
        yield Path(folder)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block at SIGINT (Ctrl-C), SIGTERM or SIGHUP.

    So the block can delete its pod. Further signals are ignored until the block has ended.
    """

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, on_signal) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
