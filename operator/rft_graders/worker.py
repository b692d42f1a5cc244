"""A worker process that runs one user's function: ``python -s -P -B -u worker.py FD PARENT``.

FD is the descriptor of a socket to the grader process, and PARENT is the grader process's PID. The worker is
started by its file path, and imports only the standard library and a few files beside it. So a restart after
a hang or a crash takes milliseconds, and no other code of rft runs in the process of the user's code.
"""

import importlib.machinery
import importlib.util
import inspect
import json
import linecache
import os
import resource
import signal
import socket
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

SOURCE_NAME = "<grader>"
PACKAGE = "_grader_files"
"""Name of the package made of a grader's file and the files beside it, so that relative imports work."""
MAX_ERROR_CHARACTERS = 500
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_OPEN_FILES = 256


def limit(memory_bytes: int) -> None:
    """Set limits on the memory, core files, file sizes and open files of this process.

    The number of processes is not limited here, because RLIMIT_NPROC counts all processes of the UID. The
    grader process limits it (``watchdog.py``).
    """
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, MAX_FILE_BYTES),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
    ):
        _, hard = resource.getrlimit(kind)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))


def _module(name: str) -> ModuleType:
    """Load the module ``name`` from the folder of this file, by its path. The folder is not in ``sys.path``,
    so users' code cannot import from it.
    """
    spec = importlib.util.spec_from_file_location(f"_rft_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    from rft_graders import confinement, guard, hosted, shapes, syscall_filter, traces
else:
    confinement, _, guard, hosted, shapes, syscall_filter, traces = map(
        _module, ("confinement", "processes", "guard", "hosted", "shapes", "syscall_filter", "traces")
    )


def load(source: str, function: str, path: str | None = None) -> "shapes.Grade":
    """Execute the user's source. Return a function that calls the user's function and returns its score.

    ``function`` is the name of the user's function in the source. ``path`` is the file of the source, or None
    if the source is not in a file. The source can import files beside this file.

    Exceptions of the source are not caught. Raises NameError if the source does not define the function, and
    TypeError if the function cannot be called as a grader.
    """
    return shapes.adapted(_found(source, function, path), function)


def load_environment(source: str, name: str, path: str | None = None) -> "hosted.Hosted":
    """Execute the user's source. Return an object that runs its environment class ``name``.

    Exceptions of the source are not caught. Raises NameError if the source does not define the class, and
    TypeError if it is not an environment class.
    """
    found = _found(source, name, path)
    if not inspect.isclass(found):
        raise TypeError(f"{name} is a {type(found).__name__}, not a class")
    return hosted.Hosted(found)


def _found(source: str, name: str, path: str | None) -> Any:
    """Execute the user's source. Return its function or class ``name``, or raise NameError."""
    source = source.removeprefix("\ufeff")  # a BOM, which compile() refuses
    linecache.cache[SOURCE_NAME] = (len(source), None, source.splitlines(True), SOURCE_NAME)
    module = _module_of(path)
    exec(compile(source, SOURCE_NAME, "exec"), module.__dict__)  # noqa: S102 - what this process is for
    found = getattr(module, name, None)
    if not callable(found):
        raise NameError(_without(module, name))
    return found


def _module_of(path: str | None) -> ModuleType:
    """Return a new module in ``sys.modules``, in which the user's source is executed.

    The module must be in ``sys.modules``, because dataclasses and pydantic look for it there. The source can
    import files beside ``path`` by name, or relatively as modules of one package. If a file has the name of
    an installed package, the import by name finds the installed package.
    """
    name = "grader" if path is None else f"{PACKAGE}.{Path(path).stem}"
    module = ModuleType(name)
    module.__file__ = path or SOURCE_NAME
    sys.modules[name] = module
    if path is not None:
        folder = str(Path(path).parent)
        sys.path.append(folder)
        package = importlib.machinery.ModuleSpec(PACKAGE, None, is_package=True)
        init = Path(folder, "__init__.py")
        if init.is_file():
            package = (
                importlib.util.spec_from_file_location(PACKAGE, init, submodule_search_locations=[folder])
                or package
            )
        package.submodule_search_locations = [folder]
        sys.modules[PACKAGE] = importlib.util.module_from_spec(package)
        module.__package__ = PACKAGE
        if package.loader is not None:
            package.loader.exec_module(sys.modules[PACKAGE])
    return module


def _without(module: ModuleType, function: str) -> str:
    """Return the error message for a source without the function ``function``. It lists the functions of the
    source.
    """
    if hasattr(module, function):
        return f"{function} is a {type(getattr(module, function)).__name__}, which cannot be called"
    own = [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]
    there = f"; it defines {', '.join(own)}: set python.function to one of them" if own else ""
    return f"the source defines no function {function}{there}"


def explain(error: BaseException) -> str:
    """Return an exception as one line of text: its type, its message, and the line number in the user's
    source. The text has at most ``MAX_ERROR_CHARACTERS`` characters.
    """
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:
        text = type(error).__name__
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == SOURCE_NAME
    ]
    where = f" (line {lines[-1]} of the grader)" if lines else ""
    return text[: MAX_ERROR_CHARACTERS - len(where)].replace("\n", " ") + where


def answer(grade: "shapes.Grade", request: dict[str, Any]) -> dict[str, Any]:
    """Score one completion with the user's function ``grade``. Return the reply for the grader process.

    The reply has the score, or the exception of the user's code as text.
    """
    try:
        asked = shapes.Asked(request["completion"], request["row"], request.get("tokens"))
        return {"id": request["id"], "score": grade(asked)}
    except BaseException as error:  # sys.exit() in users' code must not end the worker
        return {"id": request["id"], "error": explain(error)}


def act(environment: "hosted.Hosted", request: dict[str, Any]) -> dict[str, Any]:
    """Run the action in ``request``, such as ``reset`` or a tool call. Return the reply for the grader
    process. The reply has the result of the action, or the exception of the user's code as text.
    """
    try:
        return {"id": request["id"], "score": 0, "value": environment.act(request["row"])}
    except BaseException as error:  # sys.exit() in users' code must not end the worker
        return {"id": request["id"], "error": explain(error)}


def _keep_from_children(descriptor: int) -> None:
    """Keep the worker's socket, ``descriptor``, from its child processes, so that they cannot write replies.

    In a forked child the descriptor refers to /dev/null. Programs that are started do not get it at all.
    """
    os.set_inheritable(descriptor, False)

    def replace() -> None:
        # The descriptor is not closed: a later file would get its number, and replies would be written there.
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)

    os.register_at_fork(after_in_child=replace)


def _confine(descriptor: int) -> dict[str, Any]:
    """Reduce the rights of this process, and fork it. The child becomes the worker, whose rights are reduced
    once more. The parent becomes the guard, which kills the worker's processes, and never returns from here.

    Return, in the worker, a reply without its id: it says how strongly the worker is confined
    (``confinement.Level``), and whether a filter of system calls is installed. ``descriptor``: the worker's
    socket. Raises OSError if the kernel refuses.
    """
    guard.fork_worker(confinement.confine(), descriptor)
    level = confinement.confine()
    return {"score": level, "value": {"filtered": syscall_filter.install()}}


def main(descriptor: int, parent: int) -> None:
    """Run a worker: reduce the rights of this process, load the user's function or environment class, and
    answer requests until the grader process closes the socket.

    ``descriptor``: the socket to the grader process. ``parent``: the PID of the grader process.
    """
    confinement.set_dumpable(False)
    guard.end_with_parent(parent, signal.SIGKILL)
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rb") as requests:

        def send(reply: dict[str, Any]) -> None:
            connection.sendall(json.dumps(reply).encode() + b"\n")

        setup = json.loads(requests.readline())
        try:
            confined = _confine(descriptor)
        except OSError as error:
            send({"id": setup["id"], "error": f"the kernel refused to confine the worker: {error}"})
            return
        _keep_from_children(descriptor)
        send({"id": setup["id"], **confined})
        asked = json.loads(requests.readline())
        home = str(Path.cwd())
        limit(setup["memoryBytes"])
        environment: hosted.Hosted | None = None
        code = setup["source"], setup["function"], setup.get("path")
        try:
            if setup.get("environment"):
                environment = load_environment(*code)
            else:
                grade = load(*code)
        except BaseException as error:
            send({"id": asked["id"], "error": explain(error)})
            return
        found = traces.Traces(home)
        send({"id": asked["id"], "score": 0})
        for line in requests:
            request = json.loads(line)
            if request.get("ping"):
                send({"id": request["id"], "score": 0})
                continue
            if environment is None or not environment.playing:
                found.begin()
            reply = answer(grade, request) if environment is None else act(environment, request)
            # Processes and files of an environment are kept until its rollout has a reward.
            if not (environment is not None and environment.playing) and found.left():
                reply["left"] = True
            send(reply)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
