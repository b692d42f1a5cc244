"""Collects the requests of many rollouts into batches for a rollout engine."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress

from rft_trainer.rollout.engine import Generated, Request

Generate = Callable[[Sequence[Request]], list[Generated]]
_Asked = tuple[Request, "Future[Generated]"]


class BatchSampler:
    """Samples requests from any thread. All requests that wait at the same time form a batch.

    A completion does not depend on the other requests of its batch, because each request has its own seed.
    """

    def __init__(self, generate: Generate, batches: int = 1, largest: int | None = None) -> None:
        """Start threads that call ``generate``, which samples a batch of requests.

        - ``batches``: maximum number of batches that are sampled at the same time. It is 1 for an engine that
          samples one batch after another. Then all requests that arrive during a batch form the next batch. A
          server with continuous batching can sample many batches at the same time.
        - ``largest``: the maximum number of requests in a batch. With 1, batches do not depend on timing.
          None: no maximum.
        """
        self._generate, self._largest = generate, largest
        self._waiting: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"sampling-{number}", daemon=True)
            for number in range(batches)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, request: Request) -> "Future[Generated]":
        """Put a request into the queue, and return a future for its ``Generated``.

        If ``generate`` raises an error, the future raises the same error.
        """
        future: Future[Generated] = Future()
        self._waiting.put((request, future))
        return future

    def close(self) -> None:
        """Wait until all queued requests are answered, and end the threads."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (entry := self._waiting.get()) is not None:
            batch = [entry]
            with suppress(queue.Empty):
                while self._largest is None or len(batch) < self._largest:
                    more = self._waiting.get_nowait()
                    if more is None:
                        self._waiting.put(None)  # ends one thread: this one after its batch, or another
                        break
                    batch.append(more)
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
