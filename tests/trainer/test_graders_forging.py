"""Programs that a python grader starts try to forge scores. The scores of other completions do not change.

The grader process and these programs have the same UID and no capabilities, as in the grader container.
"""

import ctypes
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from rft_api.graders import Grader
from rft_graders.client import Graded, GraderClient, GradeRequest, GraderLost
from rft_graders.confinement import landlock_version
from rft_graders.protocol import LineReader, encode
from rft_graders.scorer import Scorer
from rft_graders.types import GradeItem, Score, ScoredBatch
from rft_run.config import GraderConfig, PythonGrader
from tests.trainer.forging_support import FLOODS, GRADER, HONEST, LIMITS, MEMORY, OTHERS, PRELUDE, SIGNALS

OTHER = "def grade(completion, row): return row['other']"
needs_landlock = pytest.mark.skipif(landlock_version() < 2, reason="the kernel has no Landlock")
needs_scopes = pytest.mark.skipif(landlock_version() < 6, reason="Linux before 6.12 cannot confine signals")


def without_capabilities() -> None:
    """Remove all capabilities from the bounding set: then programs that this process starts have none."""
    for capability in range(64):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


class Graders(NamedTuple):
    """A scorer and its grader process with the PID ``server``, which runs as in the grader container."""

    scorer: Scorer
    server: int

    def attacked(self, program: str) -> tuple[Score, ScoredBatch]:
        """Grade a completion with the attack ``program``, and three honest completions.

        Return the score of the attack, and the scores of the others, graded during and after the attack.
        """
        texts = [HONEST, program, *[HONEST] * 2]
        rows = [{"score": 0.25, "other": i / 8} for i in range(len(texts))]
        rows[1]["score"] = 0.0
        batch = self.scorer.score([GradeItem([], text, row) for text, row in zip(texts, rows, strict=True)])
        return batch.pop(1), batch


HONEST_SCORES = [{"code": 0.25, "other": i / 8} for i in (0, 2, 3)]


def graders(folder: Path, workers: int = 2, **sources: str) -> "Iterator[Graders]":
    config = GraderConfig(
        graders=[PythonGrader(name=n, inline=s, timeout_seconds=10) for n, s in sources.items()],
        workers=workers,
        max_processes=24,
    )
    (folder / "graders.json").write_text(config.model_dump_json(by_alias=True, exclude_none=True))
    command = [sys.executable, "-m", "rft_graders.serve", "--socket", str(folder / "s")]
    declared = [
        Grader.model_validate({"name": name, "timeoutSeconds": 10, "python": {"inline": source}})
        for name, source in sources.items()
    ]
    with (
        Scorer(declared, grader_socket=str(folder / "s")) as scorer,
        subprocess.Popen(
            [*command, "--config", str(folder / "graders.json"), "--wait", "30"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(folder)},
            preexec_fn=without_capabilities,
        ) as server,
    ):
        try:
            scorer.ready()
            yield Graders(scorer, server.pid)
        finally:
            scorer.__exit__(None, None, None)
            server.wait(20)


@pytest.fixture(scope="module")
def served() -> Iterator[Graders]:
    with tempfile.TemporaryDirectory() as folder:
        yield from graders(Path(folder), code=GRADER, other=OTHER)


def check(attack: Score, others: ScoredBatch) -> None:
    assert (attack.errors, attack.per_grader) == ({}, {"code": 0.0, "other": 0.125}), attack
    assert [score.per_grader for score in others] == HONEST_SCORES, others
    assert others.error_counts == others.forged_counts == {}


@pytest.mark.parametrize("name", MEMORY)
@needs_landlock
def test_a_program_reaches_no_memory_of_other_completions(served: Graders, name: str) -> None:
    check(*served.attacked(PRELUDE + MEMORY[name]))


@pytest.mark.parametrize("name", MEMORY)
def test_the_grader_process_and_its_workers_are_closed_even_without_landlock(
    served: Graders, name: str
) -> None:
    program = PRELUDE.replace("worker = os.getppid()", "worker = 0") + MEMORY[name]
    program = program.replace("[*others(), worker]", "others()")
    done = subprocess.run(  # not confined by Landlock
        [sys.executable, "-c", program, str(served.server)],
        preexec_fn=without_capabilities,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("TRIED\n", "")


@pytest.mark.parametrize("name", SIGNALS)
@needs_scopes
def test_a_program_cannot_signal_processes_of_other_completions(served: Graders, name: str) -> None:
    check(*served.attacked(PRELUDE + SIGNALS[name]))


@pytest.mark.parametrize("name", LIMITS)
def test_a_program_cannot_change_limits_and_priorities_of_other_processes(served: Graders, name: str) -> None:
    check(*served.attacked(PRELUDE + LIMITS[name]))


@pytest.mark.parametrize("name", OTHERS)
def test_sockets_output_files_and_late_processes_change_no_other_score(served: Graders, name: str) -> None:
    check(*served.attacked(PRELUDE + OTHERS[name]))


@pytest.mark.parametrize("name", FLOODS)
def test_floods_of_processes_change_no_other_score(served: Graders, name: str) -> None:
    attack, others = served.attacked(PRELUDE + FLOODS[name])
    assert attack.per_grader["code"] == 0.0
    assert [score.errors for score in others] == [{}] * len(others)
    assert [score.per_grader for score in others] == HONEST_SCORES, others
    assert others.error_counts == {}


# --- code in the worker itself --------------------------------------------------------------

IN_PROCESS = """
import os, sys, threading, time

def sockets():
    return [fd for fd in range(3, 64) if os.path.exists(f"/proc/self/fd/{fd}")
            and os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")]

def id_of_request():
    frame = sys._getframe()
    while "request" not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals["request"]["id"]

def write(*lines):
    for fd in sockets():
        os.write(fd, "".join(line + "\\n" for line in lines).encode())

def grade(completion, row):
    own = id_of_request()
    if completion == "guess":
        write('{"id": 1, "score": 1}')
    if completion == "twice":
        write(f'{{"id": "{own}", "score": 1}}', f'{{"id": "{own}", "score": 1}}')
    if completion == "other id":
        write('{"id": "' + own[:-1] + ("0" if own[-1] != "0" else "1") + '", "score": 1}')
    if completion == "no JSON":
        write("1")
    if completion == "later":
        threading.Timer(0.15, write, [f'{{"id": "{own}", "score": 1}}']).start()
    if completion == "at once after":
        threading.Timer(0.02, write, [f'{{"id": "{own}", "score": 1}}']).start()
        return 0.0
    if completion == "fork":
        if os.fork() == 0:
            write(f'{{"id": "{own}", "score": 1}}')
            os._exit(len(sockets()))
        return float(os.wait()[1] != 0)
    if completion == "honest":
        time.sleep(0.3)
        return 0.5
    return 0.0
"""


@pytest.fixture(scope="module")
def one_worker() -> Iterator[Graders]:
    with tempfile.TemporaryDirectory() as folder:
        yield from graders(Path(folder), workers=1, code=IN_PROCESS)


def in_process(served: Graders, completion: str) -> tuple[Score, Score]:
    first, honest = served.scorer.score([GradeItem([], text, {}) for text in (completion, "honest")])
    return first, honest


@pytest.mark.parametrize(
    ("completion", "error"),
    [
        ("guess", "a reply with an unknown id"),
        ("other id", "a reply with an unknown id"),
        ("twice", "more than one reply"),
        ("no JSON", "a line that is not a JSON object"),
    ],
)
def test_a_forged_reply_is_an_error_of_its_own_request_and_is_counted(
    one_worker: Graders, completion: str, error: str
) -> None:
    forged, honest = in_process(one_worker, completion)
    assert forged.errors == {
        "code": "forged reply: the user's code wrote into the connection of its worker process:"
        f" {error}; the worker was replaced"
    }
    assert forged.forged == {"code": 1}
    assert honest == Score(0.5, {"code": 0.5})


@pytest.mark.parametrize("completion", ["later", "at once after"])
def test_a_reply_that_repeats_an_earlier_id_is_counted_and_costs_the_next_request_nothing(
    one_worker: Graders, completion: str
) -> None:
    first, honest = in_process(one_worker, completion)
    assert first.reward == 0.0
    assert (honest.per_grader, honest.errors, honest.forged) == ({"code": 0.5}, {}, {"code": 1})


def test_a_forked_process_does_not_have_the_workers_connection(one_worker: Graders) -> None:
    first, honest = in_process(one_worker, "fork")
    assert (first, honest) == (Score(0.0, {"code": 0.0}), Score(0.5, {"code": 0.5}))


# --- what is kept, and what is not ----------------------------------------------------------

HELPERS = """
import os, subprocess, sys
helper = subprocess.Popen(["sleep", "600"])
open("loaded", "w").write("at load")

def grade(completion, row):
    assert helper.poll() is None and open("loaded").read() == "at load"
    before = os.listdir(".")
    open("scored", "w").write("by a score")
    os.makedirs("folder/deep")
    subprocess.Popen(["sleep", "600"])
    return len(before) / 10
"""


def test_helpers_and_files_from_loading_stay_and_those_of_a_score_do_not() -> None:
    grader = Grader.model_validate({"name": "user", "python": {"inline": HELPERS}})
    with Scorer([grader]) as scorer:
        batch = scorer.score([GradeItem([], "x", {}) for _ in range(6)])
        assert [score.per_grader for score in batch] == [{"user": 0.1}] * 6, batch


# --- connections ----------------------------------------------------------------------------

CONNECTS = """
import os, socket
guard = os.getppid()
server = int(open(f"/proc/{guard}/stat").read().rpartition(")")[2].split()[1])
words = open(f"/proc/{server}/cmdline").read().split(chr(0))
path = words[words.index("--socket") + 1]
second = socket.socket(socket.AF_UNIX)
try:
    second.connect(path)
    second.sendall(b'{"graders":{"code":null}}\\n' + b'{"id":"1","score":1}\\n' * 100)
except OSError:
    pass

def grade(completion, row):
    return 0.5
"""


def test_a_second_connection_made_while_code_is_loaded_is_never_read(tmp_path: Path) -> None:
    for served in graders(tmp_path, code=CONNECTS):
        (score,) = served.scorer.score([GradeItem([], "x", {})])
        assert score == Score(0.5, {"code": 0.5})


@pytest.mark.parametrize("forged", ["unknown", "repeated"])
def test_a_reply_to_no_open_request_ends_the_connection_of_the_trainer(forged: str) -> None:
    ours, theirs = socket.socketpair()

    def serve() -> None:
        reader = LineReader(theirs, 2**20)
        for number in range(2):
            request = reader.read(10)
            known = {"id": request["id"], "score": 0.5}
            last = {"unknown": {"id": "1", "score": 1}, "repeated": known}[forged]
            theirs.sendall(encode(known) + (encode(last) if number else b""))

    thread = threading.Thread(target=serve)
    thread.start()
    client = GraderClient(ours, 10)
    outcomes: dict[int, Graded] = {}
    client.exchange([GradeRequest("code", "x", {})], outcomes, lambda: False)
    assert outcomes == {0: Graded(0.5)}
    client.exchange([GradeRequest("code", "x", {})], outcomes, lambda: False)
    thread.join()
    with pytest.raises(GraderLost, match="its id belongs to no open request"):
        client.exchange([GradeRequest("code", "x", {})], outcomes, lambda: False)
    client.close()
    theirs.close()


# --- levels ---------------------------------------------------------------------------------

CONFINED = """
import os, signal, socket, subprocess, sys
from rft_graders.confinement import confine
level = confine(int(sys.argv[1]))
os.makedirs("a"), os.makedirs("b")
open("a/file", "w").close()
os.rename("a/file", "b/file")
def refused(work):
    try:
        work()
    except PermissionError:
        return True
    return False
pid = int(sys.argv[2])
abstract = socket.socket(socket.AF_UNIX)
print(level.name, *map(refused, (
    lambda: open(f"/proc/{pid}/environ", "rb").read(),
    lambda: os.kill(pid, 0),
    lambda: abstract.connect(chr(0) + sys.argv[3]),
)))
subprocess.run(["true"], check=True)
"""


@pytest.mark.parametrize(
    ("abi", "said"),
    [
        (0, "NONE False False False"),
        pytest.param(3, "MEMORY True False False", marks=needs_landlock),
        pytest.param(6, "SIGNALS True True True", marks=needs_scopes),
    ],
)
def test_each_level_closes_what_it_says_and_leaves_files_alone(tmp_path: Path, abi: int, said: str) -> None:
    name = f"rft-test-{os.getpid()}"
    with (
        socket.socket(socket.AF_UNIX) as listener,
        subprocess.Popen(["sleep", "60"], preexec_fn=without_capabilities) as other,
    ):
        listener.bind(f"\0{name}")
        listener.listen()
        done = subprocess.run(
            [sys.executable, "-c", CONFINED, str(abi), str(other.pid), name],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True, text=True, preexec_fn=without_capabilities,
        )  # fmt: skip
        other.kill()
    assert (done.stdout, done.stderr) == (f"{said}\n", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities")
def test_root_gives_users_code_no_capability_that_opens_other_processes() -> None:
    source = (
        "import subprocess\ndef grade(c, r):\n"
        "    status = subprocess.check_output(['cat', '/proc/self/status'], text=True)\n"
        "    return int(status.split('CapEff:')[1].split()[0], 16) & (1 << 19 | 1 << 5 | 1 << 21) == 0"
    )
    with Scorer([Grader.model_validate({"name": "user", "python": {"inline": source}})]) as scorer:
        assert scorer.score([GradeItem([], "x", {})])[0] == Score(1.0, {"user": 1.0})
