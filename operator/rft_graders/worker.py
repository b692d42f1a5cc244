"""One process that runs one user's function: ``python -s -P worker.py FD PARENT``.

It is started by path and imports only the standard library. So a restart after a hang or a crash takes
milliseconds, and none of our modules is in the process of the user's code.
"""

import ctypes
import inspect
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
    """Set resource limits. The watchdog limits processes, as RLIMIT_NPROC counts all of the UID."""
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, MAX_FILE_BYTES),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
    ):
        _, hard = resource.getrlimit(kind)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))


Grade = Callable[[str, dict[str, Any]], object]


def load(source: str, function: str) -> Grade:
    """Execute the user's source and return its adapted function. Raises what the source raises."""
    linecache.cache[SOURCE_NAME] = (len(source), None, source.splitlines(True), SOURCE_NAME)
    namespace: dict[str, Any] = {"__name__": "grader", "__file__": SOURCE_NAME}
    exec(compile(source, SOURCE_NAME, "exec"), namespace)  # noqa: S102 - what this process is for
    found = namespace.get(function)
    if not callable(found):
        raise NameError(f"the source defines no function {function}")
    return adapted(found)


def adapted(function: Callable[..., Any]) -> Grade:
    """Return a function of (completion, row) that calls the user's, whose style is seen by its parameters.

    evaluate(row)                          the completion is the last of row["messages"]
    grade(sample, item)                    as OpenAI's Python graders
    reward(prompts, completions, **field)  as TRL's reward functions, one rollout a call
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C
        return function
    names = list(parameters)
    if names == ["row"]:
        return lambda completion, row: function(conversation(completion, row))
    if names[:2] == ["sample", "item"]:
        return lambda completion, row: function(sample(completion), row)
    if "completions" in names:
        every = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        return lambda completion, row: batch_of_one(function, None if every else names, completion, row)
    return function


def conversation(completion: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with the completion as the last message."""
    return {**row, "messages": [*row["messages"], {"role": "assistant", "content": completion}]}


def sample(completion: str) -> dict[str, Any]:
    """Return ``sample``: the text, the text parsed as JSON or None, and choices like a chat completion's."""
    try:
        parsed = json.loads(completion)
    except (ValueError, RecursionError):
        parsed = None
    message = {"role": "assistant", "content": completion}
    return {"output_text": completion, "output_json": parsed, "choices": [{"message": message}]}


def batch_of_one(
    function: Callable[..., Any], names: list[str] | None, completion: str, row: dict[str, Any]
) -> object:
    """Call a batch function with one rollout, as lists of length one; return its only score.

    ``names`` are the function's parameters; None: it takes all.
    """
    columns = {name: [value] for name, value in row.items()}
    columns["prompts"] = [row["messages"]]
    columns["completions"] = [[{"role": "assistant", "content": completion}]]
    scores = function(**{name: column for name, column in columns.items() if names is None or name in names})
    if not isinstance(scores, list) or len(scores) != 1:
        raise TypeError(f"returned a {type(scores).__name__}, not a list of one score for each completion")
    return scores[0]


def number(result: object) -> float:
    """Return the score from a grader's result: a number, or a mapping with a number under "score"."""
    if isinstance(result, dict):
        if "score" not in result:
            raise TypeError("the returned dict has no key score")
        result = result["score"]
    # numpy's bool is not a numbers.Number.
    if isinstance(result, numbers.Real) or type(result).__name__ in ("bool_", "bool"):
        value = float(result)  # type: ignore[arg-type]
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"returned {value}")
        return value
    raise TypeError(f"returned a {type(result).__name__}, not a number")


def explain(error: BaseException) -> str:
    """Return one line for an error: type, message, and line number in the user's source."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:
        text = type(error).__name__
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == SOURCE_NAME
    ]
    where = f" (line {lines[-1]} of the grader)" if lines else ""
    return text[: MAX_ERROR_CHARACTERS - len(where)].replace("\n", " ") + where


def answer(grade: Grade, request: dict[str, Any]) -> dict[str, Any]:
    """Score one completion; any exception of the user's code becomes an error reply."""
    try:
        return {"id": request["id"], "score": number(grade(request["completion"], request["row"]))}
    except BaseException as error:  # sys.exit() in users' code must not end the worker
        return {"id": request["id"], "error": explain(error)}


def main(descriptor: int, parent: int) -> None:
    """Serve requests until the pool closes the socket."""
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
