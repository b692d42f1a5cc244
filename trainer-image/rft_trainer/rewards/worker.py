"""One process that runs one user's function: ``python -s -P worker.py FD PARENT``.

Started by path and importing only the standard library, so that a restart after a hang or a crash
takes milliseconds and the user's code finds nothing of ours in its process.
"""

import ctypes
import json
import linecache
import numbers
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

PR_SET_PDEATHSIG = 1
SOURCE_NAME = "<grader>"
MAX_ERROR_CHARACTERS = 500
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_OPEN_FILES = 256


def limit(memory_bytes: int) -> None:
    """Bound this process. The number of processes is the watchdog's: RLIMIT_NPROC counts the whole UID."""
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, MAX_FILE_BYTES),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
    ):
        _, hard = resource.getrlimit(kind)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))


def load(source: str, function: str) -> Callable[[str, dict[str, Any]], object]:
    """Run the user's source and return the function. Raises whatever the source raises."""
    linecache.cache[SOURCE_NAME] = (len(source), None, source.splitlines(True), SOURCE_NAME)
    namespace: dict[str, Any] = {"__name__": "grader", "__file__": SOURCE_NAME}
    exec(compile(source, SOURCE_NAME, "exec"), namespace)  # noqa: S102 - what this process is for
    found = namespace.get(function)
    if not callable(found):
        raise NameError(f"the source defines no function {function}")
    return found  # type: ignore[no-any-return]


def number(result: object) -> float:
    """Return the score in what a grader returned: a number, or a mapping with one under "score"."""
    if isinstance(result, dict):
        if "score" not in result:
            raise TypeError("the returned dict has no key score")
        result = result["score"]
    # numpy's bool is no number to the standard library.
    if isinstance(result, numbers.Real) or type(result).__name__ in ("bool_", "bool"):
        value = float(result)  # type: ignore[arg-type]
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"returned {value}")
        return value
    raise TypeError(f"returned a {type(result).__name__}, not a number")


def explain(error: BaseException) -> str:
    """Return one line: type, message, and the line of the user's source."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:
        text = type(error).__name__
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == SOURCE_NAME
    ]
    where = f" (line {lines[-1]} of the grader)" if lines else ""
    return text[: MAX_ERROR_CHARACTERS - len(where)].replace("\n", " ") + where


def answer(grade: Callable[[str, dict[str, Any]], object], request: dict[str, Any]) -> dict[str, Any]:
    """Score one completion; everything the user's code raises becomes an error."""
    try:
        return {"id": request["id"], "score": number(grade(request["completion"], request["row"]))}
    except BaseException as error:  # sys.exit() is the user's error, not our end
        return {"id": request["id"], "error": explain(error)}


def main(descriptor: int, parent: int) -> None:
    """Serve until the supervisor closes the socket."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    connection = socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)
    with connection, connection.makefile("rb") as requests:
        setup = json.loads(requests.readline())
        limit(setup["memoryBytes"])
        try:
            grade = load(setup["source"], setup["function"])
        except BaseException as error:
            connection.sendall(json.dumps({"id": 0, "error": explain(error)}).encode() + b"\n")
            return
        connection.sendall(b'{"id":0,"score":0}\n')
        for line in requests:
            reply = answer(grade, json.loads(line))
            connection.sendall(json.dumps(reply).encode() + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
