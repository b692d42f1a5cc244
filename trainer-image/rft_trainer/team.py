"""The processes that training is divided over: the trainer leads, the others follow.

A follower holds its part of the base and nothing else that lasts. The leader tells each over a pipe of its
own what to compute; only tensors go through ``torch.distributed``, over the loopback interface. A trainer
on one device is a team of one, and nothing here does anything.
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

from rft_api.exitcodes import ExitCode
from rft_trainer.errors import MemoryExhausted, TrainerError

log = logging.getLogger(__name__)

COLLECTIVE_TIMEOUT = timedelta(minutes=10)
NOTICE_SECONDS = 60.0
"""How long a collective may take to notice that a process is gone, before the trainer ends itself."""
_LAST_WORDS_SECONDS = 5.0
# It does not list its stores among its names.
_torch_distributed: Any = dist


@dataclass(frozen=True)
class Team:
    """One process's view. Rank 0 leads."""

    rank: int = 0
    size: int = 1

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Make the tensors, of equal shapes everywhere, those of the leader, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def sum_to_leader(self, tensors: Sequence[Tensor]) -> None:
        """Add the tensors up, in place; only the leader's are worth reading afterwards."""
        if self.size > 1:
            for tensor in tensors:
                dist.reduce(tensor, dst=0)


ALONE = Team()


@dataclass(frozen=True)
class Post:
    """A follower's first message: who it is and where the team meets."""

    rank: int
    size: int
    device: str
    meeting: str
    """Path of a file that only this user can read."""


def join(post: Post) -> Team:
    """Enter the team; returns when all are there."""
    # Other containers of the pod share its addresses: nothing listens where it need not.
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
    """Another process of the team ended."""


class Followers:
    """The processes that a leader started. None at all where it trains alone."""

    def __init__(self, size: int, device: str, scratch_dir: Path | None) -> None:
        """Start ``size`` - 1 followers. They wait for orders; ``gather`` lets all of them meet."""
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
        """Give every follower its first order and meet them. Raises the error of one that cannot come."""
        if self._size > 1:
            self.tell_all(order)
            with self.watched():
                self.team = join(Post(0, self._size, self._device, self._meeting))
            for rank, (process, _pipe) in enumerate(self._members, start=1):
                threading.Thread(target=self._watch, args=(rank, process), daemon=True).start()
        return self.team

    def tell(self, orders: Sequence[object]) -> None:
        """Give each follower its own order, the first to rank 1."""
        for rank, order in enumerate(orders, start=1):
            self._tell(rank, order)

    def tell_all(self, order: object) -> None:
        """Give every follower the same order."""
        self.tell([order] * (self._size - 1))

    def _tell(self, rank: int, order: object) -> None:
        with self.watched():
            self._members[rank - 1][1].send(order)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Turn an error that a lost follower causes here into the follower's own."""
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
        """Return the error of the first follower that ended."""
        for rank, (process, pipe) in enumerate(self._members, start=1):
            with suppress(subprocess.TimeoutExpired):
                return _error_of(rank, process.wait(_LAST_WORDS_SECONDS), _last_words(pipe))
        return None

    def _watch(self, rank: int, process: subprocess.Popen[bytes]) -> None:
        """End the trainer where a collective does not notice by itself that a follower is gone."""
        code = process.wait()
        for _ in range(int(NOTICE_SECONDS)):
            if self._closing:
                return
            threading.Event().wait(1)
        log.error("process %d of the team ended with %d, and nothing noticed", rank, code)
        os._exit(code if code in set(ExitCode) else ExitCode.UNEXPECTED)

    def close(self) -> None:
        """End the followers, which have nothing to lose."""
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
        [sys.executable, "-m", "rft_trainer.follower", str(theirs.fileno())],
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
        return MemoryExhausted(words or f"process {rank} of the team ran out of memory")
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
    return MemberLost(f"process {rank} of the team {how}{f': {words}' if words else ''}")


def follow(pipe: Connection) -> Iterator[Any]:
    """Yield the orders of the leader until it is gone."""
    with suppress(EOFError, ConnectionResetError):
        while True:
            yield pipe.recv()
