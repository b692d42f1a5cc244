"""Finds the run that a user names on the command line: a run's folder, or a job in the cluster.

For a job in the cluster, the files that a command needs are first copied to a folder on this machine.
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
"""A function that copies files of a job's folder to this machine. It gets ``fnmatch`` patterns of these
files, and returns the folder with the copies."""

Choose = Callable[[list[str], Fetch], None]
"""A function that decides which files of a job's folder a command needs. It gets the paths of all files that
the command may need, and a function of the type ``Fetch``. It calls this function for the files that the
command needs."""


@contextmanager
def run_folder(
    source: str,
    context: str | None,
    namespace: str | None,
    image: str | None,
    patterns: Sequence[str],
    choose: Choose,
) -> Iterator[Path]:
    """Yield a folder on this machine that has the files of a run.

    If ``source`` is a folder, it is yielded itself. Otherwise ``source`` is the name of a job in the cluster.
    Then files of the run are copied from the job's volume into a temporary folder, and this folder is
    yielded. The job's configuration and status are also written into the temporary folder.

    - ``image``: the image of the pod that reads the job's volume; None: the image of the job
    - ``patterns``: ``fnmatch`` patterns of the files that the calling command may need
    - ``choose``: a function that copies those of these files that the calling command really needs

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
    """Raise KeyboardInterrupt in the ``with`` block at SIGINT (Ctrl-C), SIGTERM or SIGHUP.

    So the block can clean up, for example delete a pod. After the first signal, more of these signals are
    ignored until the block has ended.
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
