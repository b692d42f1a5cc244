"""Collects the text that a process prints. The first bytes are kept. Later bytes are counted and dropped."""

import codecs
import os
import select
import threading

MAX_PRINTED_BYTES = 4096
"""Maximum number of printed bytes that are kept for one score."""

_PIPE_BYTES = 65536
"""Capacity of a pipe in bytes. One read of this size returns all bytes that are in the pipe."""


class PrintedText:
    """A pipe for the output of a process and its children. A thread reads it, so printing never blocks."""

    def __init__(self) -> None:
        """Open the pipe. The attribute ``write_end`` is the descriptor for the output of a new process. The
        caller must close it in its own process after it has started the new process.
        """
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        self._lock = threading.Lock()
        self._kept = bytearray()
        self._lost = 0
        self._open = True
        threading.Thread(target=self._collect, daemon=True).start()

    def take(self) -> str:
        """Return the text that was printed since the last call, "" if there is none. If bytes were dropped, a
        last line says how many.
        """
        with self._lock:
            self._read()
            if not self._kept and not self._lost:
                return ""
            kept, lost = bytes(self._kept), self._lost
            self._kept.clear()
            self._lost = 0
        # A character that was cut in the middle is left out.
        text = codecs.getincrementaldecoder("utf-8")("replace").decode(kept, final=not lost)
        return (
            f"{text}\n… {lost} more bytes were printed and are not kept; the limit is {MAX_PRINTED_BYTES}"
            if lost
            else text
        )

    def _collect(self) -> None:
        """Read the pipe until every process that can write to it has ended."""
        waiting = select.poll()
        waiting.register(self._read_end, select.POLLIN)
        while self._open:
            waiting.poll()
            with self._lock:
                self._read()

    def _read(self) -> None:
        """Read the bytes that are in the pipe. Close the pipe if no process can write to it any more."""
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
