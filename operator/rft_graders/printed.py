"""What a process prints: the first bytes are kept, and the rest is counted."""

import codecs
import os
import select
import threading

MAX_PRINTED_BYTES = 4096
"""Most bytes that are kept of one score."""

_PIPE_BYTES = 65536
"""The most that a pipe holds, so that one read gets all that was written before."""


class PrintedText:
    """A pipe for the output of a process and its children, which is always read, so that no writer waits."""

    def __init__(self) -> None:
        """Open the pipe. ``write_end`` is a descriptor for the process; the caller closes it."""
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        self._lock = threading.Lock()
        self._kept = bytearray()
        self._lost = 0
        self._open = True
        threading.Thread(target=self._collect, daemon=True).start()

    def take(self) -> str:
        """Return what was printed since the last call, and how much of it is not kept."""
        with self._lock:
            self._read()
            kept, lost = bytes(self._kept), self._lost
            self._kept.clear()
            self._lost = 0
        # A character that was cut in the middle is left out.
        text = codecs.getincrementaldecoder("utf-8")("replace").decode(kept, final=not lost)
        return f"{text}\n… {lost} bytes more are not kept: {MAX_PRINTED_BYTES} are at most" if lost else text

    def _collect(self) -> None:
        """Read until every process that can write has ended."""
        waiting = select.poll()
        waiting.register(self._read_end, select.POLLIN)
        while self._open:
            waiting.poll()
            with self._lock:
                self._read()

    def _read(self) -> None:
        """Read once what is there; close the pipe at its end."""
        if not self._open:
            return
        try:
            data = os.read(self._read_end, _PIPE_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._open = False
            os.close(self._read_end)
            return
        room = MAX_PRINTED_BYTES - len(self._kept)
        self._kept += data[:room]
        self._lost += max(0, len(data) - room)
