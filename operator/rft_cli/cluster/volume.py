"""Reads a run's folder on a volume in the cluster, through a pod that ``rft`` creates only for this."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rft_cli.cluster import reading_pod
from rft_cli.cluster.client import ClusterClient
from rft_cli.cluster.folder import on_its_pods_disk
from rft_cli.cluster.process import PodProcess, Unreachable
from rft_cli.cluster.reader import PIECE
from rft_cli.errors import INVALID, UserError
from rft_run.listing import FileEntry, UnsafeListing, read_listing, read_names

START_SECONDS = 600.0
"""Maximum number of seconds to wait until the pod runs. A node without the pod's image first pulls several
gigabytes."""
POLL_SECONDS = 0.5


class VolumeReader:
    """Lists and reads the files of a run's folder, by commands in a running pod that mounts the folder."""

    def __init__(self, cluster: ClusterClient, pod: str) -> None:
        self._cluster, self._pod = cluster, pod

    def files(self, patterns: Sequence[str]) -> list[FileEntry]:
        """Return the path, size and digest of each file in the run's folder whose path matches at least one
        of ``patterns``, in the form of ``fnmatch``.

        Raises UserError if the command in the pod fails, or a path could lead out of the folder.
        """
        with self._process("list", *patterns) as process, _explained():
            return read_listing(process.lines())

    def names(self, patterns: Sequence[str]) -> list[str]:
        """Return the paths of the files in the run's folder that match at least one of ``patterns``, in the
        form of ``fnmatch``. The files are not read.

        Raises UserError if the command in the pod fails, or a path could lead out of the folder.
        """
        with self._process("names", *patterns) as process, _explained():
            return read_names(process.lines())

    def content(self, wanted: Sequence[tuple[FileEntry, int]]) -> Generator[tuple[int, bytes], None, None]:
        """Yield the content of the files in ``wanted`` in pieces. A piece is the index of a file in
        ``wanted``, and the next bytes of this file.

        ``wanted`` has each file with an offset in bytes. The bytes before this offset are not yielded. If a
        file was removed or shortened since it was listed, fewer bytes are yielded than its entry says. Raises
        UserError if the command in the pod fails.
        """
        with self._process("send") as process:
            lines = [f"{offset} {entry.size} {entry.path}\n" for entry, offset in wanted]
            process.write("".join([*lines, "\n"]).encode())
            for index in range(len(wanted)):
                while size := _number(process.line()):
                    yield index, process.take(size)
            process.line()  # waits for the end of the command, and raises UserError if the command failed

    @contextmanager
    def _process(self, action: str, *arguments: str) -> Iterator[PodProcess]:
        command = reading_pod.command(action, reading_pod.FOLDER, *arguments)
        process = self._cluster.run_in_pod(self._pod, reading_pod.CONTAINER, command)
        try:
            yield process
        finally:
            process.close()


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except UnsafeListing as error:
        raise UserError(
            f"the run's folder is not downloaded: {error}; remove or rename such files on the volume", INVALID
        ) from error


@contextmanager
def volume_of(
    cluster: ClusterClient, job: Mapping[str, Any], image: str | None, say: Callable[[str], None]
) -> Iterator[VolumeReader]:
    """Start a pod that mounts the run's folder of the RFTJob ``job``, and yield a reader of this folder. The
    pod is deleted at the end of the ``with`` block.

    - ``image``: the pod's image; None: the trainer's image
    - ``say``: is called with a message if the block ends with an error and the pod cannot be deleted; the
      error of the block is then raised

    Raises:
        UserError: if the job has no folder on a volume, or the pod does not start. Also if the block ends
            without an error, and the pod cannot be deleted.
    """
    body = dict(job)
    if not ((body.get("status") or {}).get("output") or {}).get("folder"):
        raise UserError(f"{body['metadata']['name']}: has not written a run's folder yet", INVALID)
    claim = reading_pod.claim_of(body)
    if claim is None:
        raise UserError(on_its_pods_disk(body), INVALID)
    trainer = reading_pod.trainer_pod(body, cluster.child_job(body), image)
    _remove_ended(cluster, body)
    manifest = reading_pod.reading_pod(body, claim, trainer)
    pod, may_exist = manifest["metadata"]["name"], True
    try:
        try:
            cluster.create_pod(manifest)
        except UserError as error:
            may_exist = isinstance(error, Unreachable)  # with another error, the API server refused the pod
            raise
        _wait(cluster, pod)
        yield VolumeReader(cluster, pod)
    except BaseException:
        if may_exist:
            try:
                _delete(cluster, pod)
            except UserError as error:
                say(str(error))
        raise
    _delete(cluster, pod)


def _delete(cluster: ClusterClient, pod: str) -> None:
    try:
        cluster.delete_pod(pod)
    except UserError as error:
        hours = reading_pod.SECONDS / 3600
        raise UserError(
            f"{error}. The pod {pod} is not deleted, and ends by itself within {hours:g} h. Until then it may"
            f" keep its volume in use: kubectl delete pod -n {cluster.namespace} {pod}",
            error.exit_code,
        ) from error


def _remove_ended(cluster: ClusterClient, job: Mapping[str, Any]) -> None:
    """Delete ended pods that earlier ``rft`` commands created to read the folder of ``job``. These commands
    were killed, or could not delete their pods.
    """
    for pod in cluster.pods(reading_pod.selector(job)):
        if reading_pod.is_over(pod):
            cluster.delete_pod(pod["metadata"]["name"])


def _wait(cluster: ClusterClient, name: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not reading_pod.is_ready(pod := cluster.pod(name)):
        if time.monotonic() > deadline:
            raise UserError(
                f"the pod that reads the volume did not start within {START_SECONDS:.0f} s:"
                f" {reading_pod.why_it_waits(pod)}",
                INVALID,
            )
        time.sleep(POLL_SECONDS)


def _number(line: bytes) -> int:
    try:
        number = int(line)
    except ValueError:
        number = -1
    if not 0 <= number <= PIECE:
        raise UserError(f"the pod's answer is not what rft expects: {line[:80]!r}", INVALID)
    return number
