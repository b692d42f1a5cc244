"""Scores completions with all graders of a job, and returns their rewards."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from rft_api.environment import ENVIRONMENT
from rft_api.graders import Grader
from rft_graders.backends import Backend, ContainerBackend, HostBackend, LocalBackend, max_silence
from rft_graders.builtin import Builtin, builtin, check_settings
from rft_graders.client import Graded, GradeRequest, Inbox, Outcome, ShouldStop
from rft_graders.combine import combine, normalized
from rft_graders.formula import formula_problem, with_formulas
from rft_graders.ids import slot_name
from rft_graders.remote import RemoteBackend
from rft_graders.trusted import in_workers
from rft_graders.types import GradeItem, Score, ScoredBatch
from rft_run.config import GraderConfig, PythonGrader, RunConfig, max_processes, python_graders
from rft_run.errors import ConfigurationError, UserCodeError


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Act:
    """One call of a user's environment for a rollout: ``reset``, a tool, ``reply`` or the reward.

    - ``slot``: the number of the worker process that plays the rollout, from 0 on.
    - ``what``: the action, in the form that ``hosted.Hosted.act`` reads.
    - ``seconds``: the time limit of the action. None: the time limit of the environment.
    """

    slot: int
    what: dict[str, Any]
    seconds: float | None = None


class Acting:
    """Runs actions (calls of a user's environment) for several rollouts at the same time. Each rollout is
    played in its own worker process. ``Scorer.acting`` creates this object.
    """

    def __init__(self, backend: HostBackend, should_stop: ShouldStop) -> None:
        """Start a thread that sends the actions to the backend, until ``close`` is called or ``should_stop``
        returns True.
        """
        self._backend, self._should_stop = backend, should_stop
        self._inbox = Inbox()
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="environments", daemon=True)
        self._thread.start()

    def begin(self, act: Act) -> "Future[Graded]":
        """Start an action of an environment, and do not wait for its end. Return a future for its result or
        error. The future raises TrainerError if the grader container is lost, and Preempted if the run
        should stop.
        """
        with self._lock:
            if self._error is None:
                name = slot_name(ENVIRONMENT, act.slot)
                return self._inbox.put(GradeRequest(name, "", act.what, seconds=act.seconds))
            failed: Future[Graded] = Future()
            failed.set_exception(self._error)
            return failed

    def close(self) -> None:
        """Wait until every started action has ended, or until the run should stop. Then end the thread.

        Do not call ``begin`` afterwards.
        """
        self._inbox.close()
        self._thread.join()
        self._inbox.release()

    def _run(self) -> None:
        try:
            self._backend.converse(self._inbox, self._should_stop)
        except BaseException as error:  # whoever waits for a future must get the error
            with self._lock:
                self._error = error
                for future in self._inbox.unanswered():
                    future.set_exception(error)


class Scorer:
    """Scores completions with all graders of a job, and runs the actions of its environment.

    It is a context manager. ``__enter__`` opens the socket to which the grader container connects. So enter
    the context early, and call ``ready`` before the first step. Calls from several threads run one after the
    other.
    """

    def __init__(
        self,
        graders: Sequence[Grader],
        *,
        grader_socket: str | None = None,
        grader_code: Mapping[str, str] | None = None,
        scratch_dir: str | None = None,
        slots: int | None = None,
    ) -> None:
        """Check the settings of the graders. Raises ConfigurationError for a grader that cannot run.

        - ``grader_socket``: path of the socket to which the grader container connects. None: users' code runs
          in a local process.
        - ``grader_code``: for each python grader without inline source, the path of its source file.
        - ``scratch_dir``: folder in which local processes get their private folders.
        - ``slots``: number of rollouts that the environment plays at the same time. None: there is no
          environment.
        """
        for index, grader in enumerate(graders):
            check_settings(grader)
            if said := formula_problem(graders, index):
                raise ConfigurationError(f"grader {grader.name}: formula.expression: {said}")
        self._graders = tuple(graders)
        self._builtin: dict[str, Builtin] = {
            grader.name: function for grader in graders if (function := builtin(grader)) is not None
        }
        self._socket = grader_socket
        self._scratch_dir = scratch_dir
        self._slots = slots
        try:
            self._python = python_graders(graders, grader_code or {}, slots)
        except KeyError as error:
            raise ConfigurationError(
                f"grader {error.args[0]}: the file with its Python source is not mounted"
            ) from error
        except ValidationError as error:
            raise ConfigurationError(f"python graders: {error}") from error
        self._trusted = [code for grader in graders if (code := in_workers(grader)) is not None]
        self._remote = [grader for grader in graders if grader.http is not None or grader.model is not None]
        self._remote_backend = RemoteBackend(self._remote)
        self._backends: list[tuple[frozenset[str], Backend]] = []
        self._is_ready = False
        self._lock = threading.Lock()

    @classmethod
    def from_config(cls, config: RunConfig) -> Self:
        """Return a scorer for the graders and the environment in a run's configuration."""
        environment = config.spec.environment
        return cls(
            config.spec.scored_by,
            slots=environment.concurrency if environment is not None else None,
            grader_socket=config.grader_socket,
            grader_code=config.grader_code,
            scratch_dir=config.scratch_dir,
        )

    def __enter__(self) -> Self:
        """Open the socket for the grader container, and prepare the local grader processes. Return self.

        No process is started yet.
        """
        if self._trusted:
            self._add(self._trusted, self._local(self._trusted, hide=False))
        # Users' code has a grader process of its own. So its memory and its processes are never counted in
        # the limits of the built-in graders.
        if self._python and self._socket is None:
            self._add(self._python, self._local(self._python, hide=True))
        elif self._python and self._socket is not None:
            silence = max_silence([grader.timeout_seconds for grader in self._python])
            self._add(self._python, ContainerBackend(self._socket, silence))
        if self._remote:
            self._add(self._remote, self._remote_backend)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the grader processes and close their sockets."""
        for _, backend in self._backends:
            backend.close()
        self._backends.clear()

    def ready(self, should_stop: ShouldStop = _never) -> None:
        """Start the local grader processes, and wait until all graders are loaded. Without this call, the
        first call of ``score`` does so.

        Raises:
            UserCodeError: if a grader does not load.
            TrainerError: if a grader process does not start, or the grader container does not connect.
            Preempted: if ``should_stop`` returns True.
        """
        with self._lock:
            self._ready(should_stop)

    def score(self, items: Sequence[GradeItem], should_stop: ShouldStop = _never) -> ScoredBatch:
        """Run all graders on each completion in ``items``. Return the scores and the reward of each one, in
        the order of ``items``.

        Raises:
            UserCodeError: for an error of a grader with ``onError: fail``.
            TrainerError: if the grader container is lost.
            Preempted: if ``should_stop`` returns True.
        """
        with self._lock:
            self._ready(should_stop)
            given = {g.name: [item.read_by(g) for item in items] for g in self._graders if g.formula is None}
            given.pop(ENVIRONMENT if self._slots is not None else "", None)
            raw: dict[str, list[Graded | None]] = {
                name: [
                    None if text is None else Graded(_call(function, text, item))
                    for text, item in zip(given[name], items, strict=True)
                ]
                for name, function in self._builtin.items()
            }
            with ThreadPoolExecutor(len(self._backends) or 1, "grading") as threads:
                for outcomes in threads.map(
                    lambda pair: _ask(pair[1], pair[0] & given.keys(), items, given, should_stop),
                    self._backends,
                ):
                    raw |= outcomes
        if self._slots is not None:
            raw[ENVIRONMENT] = [item.environment for item in items]
        return ScoredBatch(
            self._score({name: graded[i] for name, graded in raw.items()}) for i in range(len(items))
        )

    def act(self, act: Act, should_stop: ShouldStop = _never) -> Graded:
        """Run one action of an environment, and wait for its end. Return the action's result or error.

        Raises TrainerError if the grader container is lost, and Preempted if ``should_stop`` returns True.
        """
        with self.acting(should_stop) as acting:
            return acting.begin(act).result()

    @contextmanager
    def acting(self, should_stop: ShouldStop = _never) -> Iterator[Acting]:
        """Return a context manager. Its ``with`` block gets an object that runs several actions of
        environments at the same time. Calls of ``score`` from other threads wait until the block ends.
        """
        with self._lock:
            self._ready(should_stop)
            backend = next(backend for names, backend in self._backends if ENVIRONMENT in names)
            assert isinstance(backend, ContainerBackend | LocalBackend)
            acting = Acting(backend, should_stop)
            try:
                yield acting
            finally:
                acting.close()

    def _score(self, graded: Mapping[str, Graded | None]) -> Score:
        """Return the scores and the reward of one completion.

        ``graded`` has for each grader the reply with its raw score or error. The reply is None if the grader
        was not run, because it reads only the answer after the thought, and the completion has no answer.
        """
        read = {g.name: _normalized(graded[g.name], g) for g in self._graders if g.formula is None}
        outcomes = with_formulas(self._graders, read)
        replies = {name: reply for name, reply in graded.items() if reply is not None}
        users = {grader.name for grader in self._python}
        printed = {n: reply.printed for n, reply in replies.items() if n in users and reply.printed}
        forged = {name: reply.forged for name, reply in replies.items() if reply.forged}
        return replace(combine(self._graders, outcomes), printed=printed, forged=forged)

    def _add(self, graders: Sequence[PythonGrader | Grader], backend: Backend) -> None:
        self._backends.append((frozenset(grader.name for grader in graders), backend))

    def _local(self, graders: Sequence[PythonGrader], *, hide: bool) -> LocalBackend:
        silence = max_silence([grader.timeout_seconds for grader in graders])
        config = GraderConfig(graders=list(graders), max_processes=max_processes(self._slots))
        return LocalBackend(config, self._scratch_dir, silence, hide=hide)

    def _ready(self, should_stop: ShouldStop) -> None:
        if self._is_ready:
            return
        for names, backend in self._backends:
            loaded = backend.ready(should_stop)
            problems = [
                f"grader {name} does not load: {loaded.get(name, 'the grader container has no such grader')}"
                for name in sorted(names)
                if loaded.get(name, "") is not None
            ]
            if problems:
                raise UserCodeError("; ".join(problems))
        self._is_ready = True


def _call(function: Builtin, text: str, item: GradeItem) -> Outcome:
    try:
        return function(text, item.row())
    except ValueError as error:
        return error


def _ask(
    backend: Backend,
    names: frozenset[str],
    items: Sequence[GradeItem],
    given: Mapping[str, Sequence[str | None]],
    should_stop: ShouldStop,
) -> dict[str, list[Graded | None]]:
    """Score completions with the graders ``names``, which run in ``backend``.

    Return for each grader a list with the score or error of each completion in ``items``. ``given[name][i]``
    is the text that the grader ``name`` reads of completion ``i``. If it is None, no request is sent, and the
    result is None. Requests to different graders alternate, so that the workers of all graders are busy.
    """
    rows = [item.row() for item in items]
    asked = [
        (name, index, text)
        for index in range(len(items))
        for name in sorted(names)
        if (text := given[name][index]) is not None
    ]
    requests = [GradeRequest(name, text, rows[i], items[i].token_ids) for name, i, text in asked]
    graded: dict[str, list[Graded | None]] = {name: [None] * len(items) for name in names}
    replies = backend.exchange(requests, should_stop)
    for (name, index, _), reply in zip(asked, replies, strict=True):
        graded[name][index] = reply
    return graded


def _normalized(graded: Graded | None, grader: Grader) -> Outcome:
    if graded is None:  # there is no answer, which earns 0 on every scale
        return 0.0
    outcome = graded.outcome
    if isinstance(outcome, ValueError):
        return outcome
    try:
        return normalized(outcome, grader.scale)
    except ValueError as error:
        return error
