"""Collects the requests of many rollouts into batches, since a rollout engine answers one batch at a time."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from rft_trainer.rollout.engine import Generated, Request

Generate = Callable[[Sequence[Request]], list[Generated]]
_Asked = tuple[Request, "Future[Generated]"]


class BatchSampler:
    """Samples requests from any thread. All requests that wait while a batch is sampled are the next batch.

    A completion does not depend on the other requests of its batch, since each has its own seed.
    """

    def __init__(self, generate: Generate) -> None:
        """Start a thread that calls ``generate``, with one batch after the other."""
        self._generate = generate
        self._waiting: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sampling", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> "Future[Generated]":
        """Return the future completion of a request. It raises what ``generate`` raised."""
        future: Future[Generated] = Future()
        self._waiting.put((request, future))
        return future

    def close(self) -> None:
        """Answer the requests that wait, and end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        open_ = True
        while open_:
            batch: list[_Asked] = []
            entry = self._waiting.get()
            while True:
                if entry is None:
                    open_ = False
                else:
                    batch.append(entry)
                try:
                    entry = self._waiting.get_nowait()
                except queue.Empty:
                    break
            self._answer([one for one in batch if one[1].set_running_or_notify_cancel()])

    def _answer(self, batch: Sequence[_Asked]) -> None:
        if not batch:
            return
        try:
            generated = self._generate([request for request, _ in batch])
        except BaseException as error:  # every request must get an answer, and the thread must not end
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), completion in zip(batch, generated, strict=True):
            future.set_result(completion)
