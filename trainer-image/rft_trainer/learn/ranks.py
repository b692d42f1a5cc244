"""Distributed training on one node: the trainer is the leader (rank 0), the other processes are followers.

The only state of a follower is the frozen base model, or its shard of it. The leader sends commands to each
follower over a pipe. Tensors are exchanged with ``torch.distributed`` (NCCL or gloo) over the loopback
interface. A trainer on one device is a team of size 1: it starts no followers and exchanges nothing.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rft_run.errors import MemoryExhausted, TrainerError
from rft_run.exit_codes import ExitCode

log = logging.getLogger(__name__)

COLLECTIVE_TIMEOUT = timedelta(minutes=10)
NOTICE_SECONDS = 60.0
"""Time in seconds after which the trainer exits, if a follower process has ended unexpectedly.

Usually the trainer's collective operation fails earlier, and the trainer ends with the follower's error.
"""
_LAST_WORDS_SECONDS = 5.0
# Typed as Any, because the type stubs of torch.distributed do not export FileStore.
_torch_distributed: Any = dist


@dataclass(frozen=True)
class Team:
    """Rank of this process and number of processes of distributed training. Rank 0 is the leader."""

    rank: int = 0
    size: int = 1

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite these tensors in place with those of the leader (rank 0). All processes call this method.

        The shapes of the tensors are equal in all processes.
        """
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def sum_to_leader(self, tensors: Sequence[Tensor]) -> None:
        """Sum the tensors over all processes into those of the leader (rank 0). All processes call this.

        In the other processes, the tensors have undefined values afterwards.
        """
        if self.size > 1:
            for tensor in tensors:
                dist.reduce(tensor, dst=0)


ALONE = Team()


@dataclass(frozen=True)
class Post:
    """The first message to a follower process: its rank, and how to join the torch.distributed process group.

    ``size``: number of processes, with the leader. ``device``: "cpu" or "cuda".
    """

    rank: int
    size: int
    device: str
    meeting: str
    """Path of the rendezvous file of ``torch.distributed``. Only this user can read it."""


def join(post: Post) -> Team:
    """Join torch's process group for distributed training. Return when all processes have joined.

    Returns the rank of this process and the number of processes.
    """
    # Use loopback only, so that nothing listens on the pod's own address.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    if post.device == "cuda":
        torch.cuda.set_device(post.rank)
    dist.init_process_group(
        "nccl" if post.device == "cuda" else "gloo",
        store=_torch_distributed.FileStore(post.meeting, post.size),
        rank=post.rank,
        world_size=post.size,
        timeout=COLLECTIVE_TIMEOUT,
    )
    return Team(post.rank, post.size)


class MemberLost(TrainerError):
    """Error of the leader: another process of distributed training (a follower) ended unexpectedly."""


class Followers:
    """The other processes of distributed training (ranks 1 and higher). The leader (rank 0) starts them.

    The leader sends them commands. In a run on one device there are none, and no commands are sent.
    """

    def __init__(self, size: int, device: str, scratch_dir: Path | None) -> None:
        """Start ``size`` - 1 follower processes, which wait for commands. ``gather`` connects them.

        ``device``: "cpu" or "cuda".
        ``scratch_dir``: where a temporary folder for the rendezvous file is made. None: the system's folder.
        """
        self.team = ALONE
        self._size, self._device = size, device
        self._closing = False
        self._members: list[tuple[subprocess.Popen[bytes], Connection]] = []
        if size > 1:
            self._folder = tempfile.TemporaryDirectory(prefix="rft-team-", dir=scratch_dir)
            self._meeting = str(Path(self._folder.name) / "meeting")
            for rank in range(1, size):
                self._members.append(_start())
                self._tell(rank, Post(rank, size, device, self._meeting))

    def gather(self, order: object) -> Team:
        """Send ``order`` as the first command to every follower, and form torch's process group with them.

        Return the rank of this process and the number of processes. Raises the error of a follower that ended
        before it joined the group.
        """
        if self._size > 1:
            self.tell_all(order)
            with self.watched():
                self.team = join(Post(0, self._size, self._device, self._meeting))
            for rank, (process, _pipe) in enumerate(self._members, start=1):
                threading.Thread(target=self._watch, args=(rank, process), daemon=True).start()
        return self.team

    def tell(self, orders: Sequence[object]) -> None:
        """Send each follower its own command: the first of ``orders`` to rank 1, the second to rank 2, ..."""
        for rank, order in enumerate(orders, start=1):
            self._tell(rank, order)

    def tell_all(self, order: object) -> None:
        """Send the same command to every follower."""
        self.tell([order] * (self._size - 1))

    def _tell(self, rank: int, order: object) -> None:
        with self.watched():
            self._members[rank - 1][1].send(order)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """If the ``with`` block fails because a follower process has ended, raise the follower's error.

        Other errors of the block are raised unchanged.
        """
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, OSError) as error:
            lost = self._lost()
            if lost is None:
                raise
            raise lost from error

    def _lost(self) -> TrainerError | None:
        """Return the error of the first follower that has ended. None: all followers still run.

        Waits up to 5 s for the end of each follower.
        """
        for rank, (process, pipe) in enumerate(self._members, start=1):
            with suppress(subprocess.TimeoutExpired):
                return _error_of(rank, process.wait(_LAST_WORDS_SECONDS), _last_words(pipe))
        return None

    def _watch(self, rank: int, process: subprocess.Popen[bytes]) -> None:
        """Wait until a follower process ends, and ``NOTICE_SECONDS`` more. Then exit the trainer.

        Runs in a thread of its own. After a call of ``close``, the trainer does not exit.
        """
        code = process.wait()
        for _ in range(int(NOTICE_SECONDS)):
            if self._closing:
                return
            threading.Event().wait(1)
        log.error("training process %d ended with code %d, so the trainer exits", rank, code)
        os._exit(code if code in set(ExitCode) else ExitCode.UNEXPECTED)

    def close(self) -> None:
        """Kill the follower processes. They have no state to save."""
        self._closing = True
        if dist.is_initialized() and self._members:
            with suppress(RuntimeError):
                dist.destroy_process_group()
        for process, pipe in self._members:
            pipe.close()
            process.kill()
            process.wait()
        if self._members:
            self._folder.cleanup()
        self._members = []


def _start() -> tuple[subprocess.Popen[bytes], Connection]:
    ours, theirs = Pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "rft_trainer.learn.follower", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
    )
    theirs.close()
    return process, ours


def _last_words(pipe: Connection) -> str:
    with suppress(EOFError, OSError):
        if pipe.poll():
            return str(pipe.recv())
    return ""


def _error_of(rank: int, code: int, words: str) -> TrainerError:
    if code == ExitCode.OUT_OF_MEMORY:
        return MemoryExhausted(words or f"training process {rank} ran out of memory")
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return MemberLost(f"training process {rank} {how}{f': {words}' if words else ''}")


def follow(pipe: Connection) -> Iterator[Any]:
    """Yield the commands that a follower gets from the leader, until the leader closes the pipe."""
    with suppress(EOFError, ConnectionResetError):
        while True:
            yield pipe.recv()
