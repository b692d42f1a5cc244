"""Distributes the requests of a run over several samplers. A group's rollouts are sent to the same sampler.

Each prompt has a home: one of the samplers, the same in every step. So the prompt of a group is computed only
once. When the row is used again in the next epoch, its prompt may still be in the sampler's cache. If the
home already has its share of the groups, a group goes to the sampler with the fewest groups.

If a sampler dies, its unanswered requests go to the other samplers, and the dead sampler is restarted. It is
used again after it has loaded the adapters of all batches that are being sampled. The run ends only if no
sampler is left.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from statistics import fmean

from rft_run.errors import SamplerError
from rft_trainer.rollout.engine import (
    AdapterVersion,
    ConnectionLost,
    Generated,
    Replica,
    Request,
    rollout_seed,
    unnoticed,
)

log = logging.getLogger(__name__)
LARGEST_DIFFERENCE = 0.25
"""Largest mean difference that is allowed between the log-probs of two samplers, in nats.

Both samplers have the same adapter. The module ``probe`` allows the same difference between sampler and
trainer in bfloat16.
"""


class _Member:
    """One of several samplers, with a thread that restarts the sampler and loads its adapters.

    If the sampler samples one batch at a time, the same thread also sends the batches to the sampler.
    Otherwise further threads send them.
    """

    def __init__(self, number: int, replica: Replica) -> None:
        self.number, self.replica = number, replica
        self.thread = ThreadPoolExecutor(1, f"sampler-{number}")
        more = replica.batches > 1
        self.sampling = ThreadPoolExecutor(replica.batches, f"sampling-{number}") if more else self.thread
        self._lock = threading.Lock()
        self.restarting: Future[None] | None = None
        self.lost: SamplerError | None = None
        """The error after which this sampler is not used any more. None: it is used."""

    @property
    def ready(self) -> bool:
        """Whether requests can be sent to the sampler now: it is neither lost nor being restarted."""
        with self._lock:
            return self._ready()

    def _ready(self) -> bool:
        if self.restarting is not None and self.restarting.done():
            error, self.restarting = self.restarting.exception(), None
            if isinstance(error, SamplerError):
                log.warning("sampler %d failed and is not used any more: %s", self.number, error)
                self.lost = error
            elif error is not None:
                raise error
        return self.lost is None and self.restarting is None

    def call(self, do: Callable[[Replica], None]) -> "Future[None] | None":
        """Let the sampler's thread call ``do`` with the sampler. Return the future of the call.

        Return None in two cases. If the sampler is lost, ``do`` is not called. If the sampler is being
        restarted, ``do`` is called after the restart, and the sampler is ``ready`` only after that.
        """
        with self._lock:
            if self.lost is not None:
                return None
            ready, done = self._ready(), self.thread.submit(do, self.replica)
            if not ready:
                self.restarting = done
            return done if ready else None

    def restart(self, cause: ConnectionLost) -> None:
        """Begin a restart of the sampler in its thread, unless a restart has already begun.

        ``cause``: the error that the death of the sampler has caused. After a successful restart, ``ready``
        is true.
        """
        with self._lock:
            if self.restarting is None:
                log.warning("sampler %d ended: %s; it is restarted", self.number, cause)
                self.restarting = self.thread.submit(self.replica.recover, cause)


class RoutedEngine:
    """A sampler that distributes requests over several samplers, each of which has the whole model."""

    def __init__(
        self,
        make: Callable[[int, Callable[[], bool]], Replica],
        count: int,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Make ``count`` samplers with ``make``.

        ``make`` returns a sampler. Its arguments are the number of the sampler, from 0, and a function that
        returns whether the sampler must stop. ``should_stop``: returns whether the run must stop.
        """
        self._closing = threading.Event()
        self._members: list[_Member] = []
        try:
            for number in range(count):
                replica = make(number, lambda: self._closing.is_set() or should_stop())
                self._members.append(_Member(number, replica))
        except BaseException:
            self.close()
            raise

    @property
    def batches(self) -> int:
        """Number of calls of ``generate`` that should run at the same time."""
        return self._members[0].replica.batches

    @property
    def adapters(self) -> int:
        """Number of adapters that requests may use at the same time."""
        return self._members[0].replica.adapters

    @property
    def concurrency(self) -> int:
        """Number of completions that all samplers together decode at the same time."""
        return sum(member.replica.concurrency for member in self._members if member.lost is None)

    @property
    def restarts(self) -> int:
        """Number of times that a sampler ended unexpectedly and was restarted."""
        return sum(member.replica.restarts for member in self._members)

    def wait_until_ready(self) -> None:
        """Wait until all samplers can be used, also after a restart. Raises SamplerError if none is left."""
        wait([one for member in self._members if (one := member.restarting) is not None])
        self._on_all(lambda replica: replica.wait_until_ready())

    def use_adapter(self, adapter: AdapterVersion | None, kept: Sequence[AdapterVersion] = ()) -> None:
        """Load ``adapter`` into all samplers, as their current adapter. None: the base model alone.

        ``kept``: adapters that stay loaded too. A sampler that is being restarted gets the adapters after its
        restart, and this call does not wait for that. Raises SamplerError if no sampler is left.
        """
        self._on_all(lambda replica: replica.use_adapter(adapter, kept))

    def _on_all(self, do: Callable[[Replica], None]) -> None:
        """Call ``do`` for all samplers at the same time, and wait for the end of the calls.

        A sampler for which ``do`` raises SamplerError is not used any more. Raises SamplerError if no sampler
        is left.
        """
        begun = [(member, done) for member in self._members if (done := member.call(do)) is not None]
        for member, done in begun:
            try:
                done.result()
            except SamplerError as error:
                log.warning("sampler %d failed and is not used any more: %s", member.number, error)
                member.lost = error
        self._live()

    def _live(self) -> list[_Member]:
        """Return the samplers that can be used now. If there is none, wait for the first restart to end.

        Raises SamplerError if no sampler is left.
        """
        while True:
            live = [member for member in self._members if member.ready]
            if live:
                return live
            # Another thread may take note of the end of a restart at any time. So each value is read once.
            restarting = [one for member in self._members if (one := member.restarting) is not None]
            if restarting:
                wait(restarting, return_when=FIRST_COMPLETED)
                continue
            lost = [error for member in self._members if (error := member.lost) is not None]
            if len(lost) == len(self._members):
                raise lost[0]

    def generate(
        self,
        requests: Sequence[Request],
        should_stop: Callable[[], bool] = lambda: False,
        answered: Callable[[], None] = unnoticed,
    ) -> list[Generated]:
        """Sample one completion for each request, and return them in the order of the requests.

        Each request gets exactly one answer. A request is sent to another sampler only if its sampler has
        died before it answered this request. ``answered`` is called once for each completion.
        """
        done: dict[int, Generated] = {}
        while len(done) < len(requests):
            missing = {index: request for index, request in enumerate(requests) if index not in done}
            self._attempt(missing, done, should_stop, answered)
        return [done[index] for index in range(len(requests))]

    def _attempt(
        self,
        missing: dict[int, Request],
        done: dict[int, Generated],
        should_stop: Callable[[], bool],
        answered: Callable[[], None] = unnoticed,
    ) -> None:
        """Send all requests in ``missing`` to the samplers, and wait for the end of all calls.

        A completion is put into ``done`` under the key of its request. If a sampler dies, its unanswered
        requests are sent to other samplers. If there is no other sampler, these requests get no answer here.
        """
        live = self._live()
        shares = route(missing, [member.number for member in live])
        failed = threading.Event()

        def stop() -> bool:
            return failed.is_set() or should_stop()

        def send(member: _Member, share: dict[int, Request]) -> Future[None]:
            return member.sampling.submit(member.replica.attempt, share, done, stop, answered)

        running = {
            send(member, shares[member.number]): (member, shares[member.number])
            for member in live
            if shares[member.number]
        }
        error: BaseException | None = None
        while running:
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                (member, given), found = running.pop(future), future.exception()
                if isinstance(found, ConnectionLost):
                    member.restart(found)
                    left = {key: one for key, one in given.items() if key not in done}
                    others = [other for other in live if other is not member and other.ready]
                    if left and others and error is None:
                        for number, share in route(left, [other.number for other in others]).items():
                            if share:
                                other = next(one for one in others if one.number == number)
                                running[send(other, share)] = (other, share)
                elif found is not None:
                    error = error or found
                    failed.set()
        if error is not None:
            raise error

    def logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """Return the log-prob, in nats, of each token of a text except the first, with the current adapter.

        All samplers compute them. Raises SamplerError if the log-probs of two samplers differ by more than
        ``LARGEST_DIFFERENCE`` on average, because then one of them has a wrong adapter.
        """
        answers: list[tuple[_Member, list[float]]] = []
        while not answers:
            asked = [
                (member, member.thread.submit(member.replica.logprobs, token_ids)) for member in self._live()
            ]
            for member, future in asked:
                try:
                    answers.append((member, future.result()))
                except SamplerError as error:
                    member.lost = error
        (first, found), *others = answers
        for member, other in others:
            apart = fmean(abs(one - two) for one, two in zip(found, other, strict=True)) if found else 0.0
            if apart > LARGEST_DIFFERENCE:
                raise SamplerError(
                    f"samplers {first.number} and {member.number} give log-probs of the same text that differ"
                    f" by {apart:.2f} nats on average: one of them does not use the current adapter"
                )
        return found

    def close(self) -> None:
        """Stop all samplers, and end their threads."""
        self._closing.set()
        closed = [member.thread.submit(member.replica.close) for member in self._members]
        for member in self._members:
            member.thread.shutdown(wait=True)
            member.sampling.shutdown(wait=True)
        for future in closed:
            future.result()


def route(requests: dict[int, Request], samplers: Sequence[int]) -> dict[int, dict[int, Request]]:
    """Distribute requests over samplers. Return the requests of each sampler, by the sampler's number.

    ``samplers``: the numbers of the samplers that can be used. Requests for the same prompt are a group, and
    go to the same sampler: the home of the prompt. This is the sampler for which the hash of prompt and
    sampler is the largest (rendezvous hashing). So if a sampler is missing, only its own prompts get another
    home. A sampler gets at most an equal share of the groups, rounded up. Further groups go to the sampler
    with the fewest groups.
    """
    groups: dict[tuple[int, ...], dict[int, Request]] = {}
    for key, request in requests.items():
        groups.setdefault(request.prompt_token_ids, {})[key] = request
    most = -(-len(groups) // len(samplers))
    shares: dict[int, dict[int, Request]] = {number: {} for number in samplers}
    taken = dict.fromkeys(samplers, 0)
    for prompt, group in groups.items():
        text = ",".join(map(str, prompt))
        home = max(samplers, key=lambda number: rollout_seed("home", text, number))
        if taken[home] >= most:
            home = min(samplers, key=lambda number: (taken[number], len(shares[number]), number))
        taken[home] += 1
        shares[home] |= group
    return shares
