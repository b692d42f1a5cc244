"""Users' code in real processes: an error or an attack changes only the score of its own completion."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rft_api.graders import ConfigMapCode, ExactMatch, Grader, Python, Regex
from rft_graders import backends
from rft_graders.client import Graded, GradeRequest, Listener
from rft_graders.processes import children_of, memory_of, tree_of
from rft_graders.protocol import MAX_REQUEST_BYTES
from rft_graders.scorer import Scorer
from rft_graders.types import GradeItem, Score
from rft_run.config import GraderConfig, PythonGrader
from rft_run.errors import ConfigurationError, Preempted, TrainerError, UserCodeError

MISBEHAVING = """
import os, sys, time

def grade(completion, row):
    if completion == "hang":
        while True: pass
    if completion == "raise":
        raise ValueError("not today")
    if completion == "exit":
        os._exit(3)
    if completion == "sysexit":
        sys.exit(0)
    if completion == "memory":
        return len(bytearray(10 * 2**30))
    if completion == "output":
        while True: print("x" * 10000)
    if completion == "text":
        return "1"
    if completion == "nan":
        return float("nan")
    if completion == "none":
        return None
    if completion == "huge":
        return 10 ** 400
    if completion == "outside":
        return 2
    if completion == "forged":
        for fd in range(3, 64):
            try: os.write(fd, b'{"id": 12345, "score": 1}\\n')
            except OSError: pass
        return 0.0
    if completion == "flood":
        for fd in range(3, 64):
            try: os.write(fd, b"x" * 100000)
            except OSError: pass
        return 0.0
    if completion == "dict":
        return {"score": 0.25, "why": "so"}
    return True
"""

FORGED = "forged reply: the user's code wrote into the connection of its worker process:"


def python(source: str, **settings: object) -> Grader:
    return Grader.model_validate(
        {"name": "user", "timeoutSeconds": 1, "python": {"inline": source}, **settings}
    )


def item(completion: str, **fields: object) -> GradeItem:
    return GradeItem([{"role": "user", "content": "question"}], completion, fields)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition was not true within {seconds:g} s"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def misbehaving() -> Iterator[Scorer]:
    with Scorer([python(MISBEHAVING)]) as scorer:
        yield scorer


@pytest.mark.parametrize(
    ("completion", "error"),
    [
        ("hang", "no score within 1 s"),
        ("raise", "ValueError: not today (line 8 of the grader)"),
        ("exit", "the worker ended with exit code 3"),
        ("sysexit", "SystemExit: 0"),
        ("memory", "MemoryError"),
        ("output", "no score within 1 s"),
        ("text", "returned a str, not a number"),
        ("nan", "returned nan"),
        ("none", "returned a NoneType, not a number"),
        ("huge", "OverflowError"),
        ("outside", "the score 2 is outside the grader's scale, 0…1"),
        (
            "forged",
            f"{FORGED} a reply with an unknown id",
        ),
        (
            "flood",
            f"{FORGED} a line of more than",
        ),
    ],
)
def test_an_error_of_users_code_fails_only_one_score(
    misbehaving: Scorer, completion: str, error: str
) -> None:
    bad, good = misbehaving.score([item(completion), item("well")])
    assert error in bad.errors["user"]
    assert bad.reward == 0.0
    assert good == Score(1.0, {"user": 1.0}, {})


def test_a_score_may_come_in_a_dict(misbehaving: Scorer) -> None:
    assert misbehaving.score([item("dict")])[0].reward == 0.25


def test_the_function_gets_the_row_with_its_messages() -> None:
    source = (
        "def check(completion, row):\n    return row['messages'][0]['content'] + row['answer'] == completion"
    )
    grader = Grader(name="user", python=Python(inline=source, function="check"))
    with Scorer([grader]) as scorer:
        assert scorer.score([item("question42", answer="42")])[0].reward == 1.0


@pytest.mark.parametrize(
    "source",
    [
        # The interface of evaluators that score whole conversations.
        "def grade(row):\n    *_, asked, said = row['messages']\n"
        "    return {'score': asked['content'] + row['answer'] == said['content']}",
        # The interface of OpenAI's Python graders.
        "def grade(sample, item):\n"
        "    return sample['output_text'] == 'question' + item['answer'] and sample['output_json'] is None",
        # The interface of TRL's reward functions, with and without a parameter for unused columns.
        "def grade(prompts, completions, answer, **kwargs):\n"
        "    return [float(p[-1]['content'] + a == c[0]['content'])"
        " for p, c, a in zip(prompts, completions, answer)]",
        "def grade(completions, answer):\n    return [c[0]['content'].endswith(a) for c, a in"
        " zip(completions, answer)]",
        # An instance of the user's own class.
        "class Grade:\n    def __call__(self, completion, row):\n"
        "        return completion == 'question' + row['answer']\n"
        "grade = Grade()",
    ],
)
def test_the_interface_of_users_code_is_recognized_by_its_parameters(source: str) -> None:
    with Scorer([python(source)]) as scorer:
        right, wrong = scorer.score([item("question42", answer="42"), item("question43", answer="42")])
    assert (right, wrong) == (Score(1.0, {"user": 1.0}, {}), Score(0.0, {"user": 0.0}, {}))


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        ("0.5", "returned a float, not a list of one score"),
        ("[1, 1]", "not a list"),
        ("[None]", "a NoneType"),
    ],
)
def test_a_batch_reward_function_must_return_a_list_of_one_score(returned: str, problem: str) -> None:
    with Scorer([python(f"def grade(prompts, completions, **kwargs): return {returned}")]) as scorer:
        assert problem in scorer.score([item("x", answer="42")])[0].errors["user"]


def test_the_source_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "grader.py").write_text("def grade(completion, row):\n    return 1")
    grader = Grader(name="user", python=Python(config_map=ConfigMapCode(name="code")))
    with Scorer([grader], grader_code={"user": str(tmp_path / "grader.py")}) as scorer:
        assert scorer.score([item("x")])[0].reward == 1.0
    with pytest.raises(ConfigurationError, match="its Python source is not mounted"):
        Scorer([grader])


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("def grade(", "SyntaxError"),
        ("def other(c, r): pass", "the source defines no function grade"),
        ("import no_such_module", "ModuleNotFoundError"),
        ("raise SystemExit(1)", "SystemExit"),
        ("import os\nos._exit(7)", "the worker ended with exit code 7"),
    ],
)
def test_code_that_does_not_load_is_reported_before_the_first_score(source: str, problem: str) -> None:
    with Scorer([python(source)]) as scorer, pytest.raises(UserCodeError, match=problem):
        scorer.ready()


def test_users_code_cannot_read_the_trainers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    source = f"""
import os
def grade(completion, row):
    assert "HF_TOKEN" not in os.environ and "PYTHONPATH" not in os.environ, sorted(os.environ)
    status = open("/proc/self/status").read()
    if int(status.split("CapEff:")[1].split()[0], 16) >> 19 & 1:
        return 1  # with CAP_SYS_PTRACE, as root has it, every process is readable
    try:
        open("/proc/{os.getpid()}/environ", "rb").read()
    except PermissionError:
        return 1
"""
    with Scorer([python(source)]) as scorer:
        assert scorer.score([item("x")])[0] == Score(1.0, {"user": 1.0}, {})


def test_the_trainer_process_is_dumpable_again_after_local_grading() -> None:
    def dumpable() -> int:
        return int(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE

    with Scorer([python("def grade(c, r): return 1")]):
        assert dumpable() == 0
    assert dumpable() == 1


def test_a_pattern_that_backtracks_endlessly_fails_only_one_score() -> None:
    grader = Grader(name="pattern", timeout_seconds=0.5, regex=Regex(pattern="(a+)+$"))
    with Scorer([grader]) as scorer:
        bad, good, none = scorer.score([item("a" * 40 + "!"), item("aaa"), item("b")])
    assert bad.errors == {"pattern": "no score within 0.5 s"}
    assert (good.reward, none.reward) == (1.0, 0.0)


@pytest.mark.parametrize(("completion", "score"), [("12", 1.0), ("12a", 0.0)])
def test_a_full_match_covers_the_whole_completion(completion: str, score: float) -> None:
    grader = Grader(name="pattern", regex=Regex(pattern=r"\d+", full_match=True))
    with Scorer([grader]) as scorer:
        assert scorer.score([item(completion)])[0].reward == score


def test_scores_of_many_workers_are_in_the_order_of_the_requests() -> None:
    source = "import time\ndef grade(c, r):\n    time.sleep(0.01 * (r['i'] % 3))\n    return r['i'] / 100"
    graders = [python(source), Grader(name="exact", exact_match=ExactMatch())]
    with Scorer(graders) as scorer:
        batch = scorer.score([item("x", i=i, answer="x") for i in range(100)])
    assert [score.per_grader["user"] for score in batch] == [i / 100 for i in range(100)]
    assert batch.error_counts == {}


def test_a_row_that_is_too_large_fails_only_one_score(misbehaving: Scorer) -> None:
    large, good = misbehaving.score([item("x" * MAX_REQUEST_BYTES), item("well")])
    assert "larger than" in large.errors["user"]
    assert good.reward == 1.0


def test_grading_can_be_stopped(misbehaving: Scorer) -> None:
    with pytest.raises(Preempted):
        misbehaving.score([item("hang")], should_stop=lambda: True)
    until(lambda: misbehaving.score([item("well")])[0].reward == 1.0)


def local(source: str, *, seconds: float = 20, **limits: int) -> backends.LocalBackend:
    graders = [PythonGrader(name="user", inline=source, timeout_seconds=seconds)]
    config = GraderConfig(graders=graders, workers=1).model_copy(update=limits)
    return backends.LocalBackend(config, None, 60)


def never() -> bool:
    return False


FORKS = """
import os, time
def grade(completion, row):
    if completion != "bomb":
        return 1
    for _ in range(60):
        if os.fork() == 0:
            os.setsid()
            time.sleep(60)
            os._exit(0)
    time.sleep(60)
"""


def test_all_processes_of_a_fork_bomb_are_killed() -> None:
    backend = local(FORKS, max_processes=10)
    try:
        assert backend.ready(never) == {"user": None}
        assert backend._process is not None
        server = backend._process.pid
        bad, good = backend.exchange([GradeRequest("user", "bomb", {}), GradeRequest("user", "x", {})], never)
        assert str(bad.outcome) == "the worker was killed: users' code ran more than 10 processes"
        assert good == Graded(1.0)
        until(lambda: len(tree_of(server)) == 3)  # the server, its one worker and the worker's guard
    finally:
        backend.close()


LEAVERS = """
import ctypes, os, threading, time

def grade(completion, row):
    if completion == "bomb":  # a score, and many processes that stay
        for _ in range(40):
            if os.fork() == 0:
                os.setsid()
                time.sleep(60)
                os._exit(0)
    if completion == "zombie":  # one process that has ended, for which nobody waits
        if os.fork() == 0:
            os._exit(0)
    if completion == "memory":
        if os.fork() == 0:
            held = bytearray(b"x") * (200 * 2**20)
            time.sleep(60)
        time.sleep(0.2)
    if completion == "exit later":
        threading.Timer(0.05, os._exit, (3,)).start()
    if completion.startswith("signal"):  # about when the score is sent
        number, worker = int(completion.split()[1]), os.getpid()
        if os.fork() == 0:
            time.sleep(row["seconds"])
            os.kill(worker, number)
            os._exit(0)
    if completion == "hidden":  # a process that looks like a zombie: its first thread has ended
        if os.fork() == 0:
            os.setsid()
            threading.Thread(target=change, args=(os.getpid(),)).start()
            ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)
    return 0 if os.path.exists("changed") else 1

def change(pid):
    end = time.monotonic() + 5
    while time.monotonic() < end:
        open("changed", "w").close()
        time.sleep(0.001)
    os._exit(0)
"""


@pytest.mark.parametrize(
    "first",
    ["bomb", "memory", "zombie", "hidden", f"signal {signal.SIGSTOP:d}", f"signal {signal.SIGKILL:d}"],
)
def test_what_a_score_leaves_is_not_charged_to_the_next_completion(first: str) -> None:
    backend = local(LEAVERS, seconds=1, max_processes=10, memory_mebibytes=256)
    try:
        assert backend.ready(never) == {"user": None}
        for number in range(25 if first == "zombie" else 10):
            row = {"seconds": number / 2000}
            _, good = backend.exchange(
                [GradeRequest("user", first, row), GradeRequest("user", "x", {})], never
            )
            assert good == Graded(1.0)
    finally:
        backend.close()


def test_a_worker_that_ended_between_two_requests_is_replaced() -> None:
    backend = local(LEAVERS)
    try:
        assert backend.ready(never) == {"user": None}
        backend.exchange([GradeRequest("user", "exit later", {})], never)
        time.sleep(0.3)
        assert backend.exchange([GradeRequest("user", "x", {})], never) == [Graded(1.0)]
    finally:
        backend.close()


CHILDREN_WITH_MEMORY = """
import os, time
def grade(completion, row):
    if completion != "bomb":
        return 1
    for _ in range(4):
        if os.fork() == 0:
            held = bytearray(b"x") * (60 * 2**20)
            time.sleep(60)
    time.sleep(60)
"""


def test_memory_is_limited_for_all_processes_together() -> None:
    backend = local(CHILDREN_WITH_MEMORY, memory_mebibytes=150)
    try:
        backend.ready(never)
        bad, good = backend.exchange([GradeRequest("user", "bomb", {}), GradeRequest("user", "x", {})], never)
        assert str(bad.outcome) == "the worker was killed: users' code used over 150 MiB of memory"
        assert good == Graded(1.0)
    finally:
        backend.close()


HOARD = """
def grade(completion, row):
    held = []
    while completion == "bomb":
        held.append(bytearray(b"x") * 2**20)
    return 1
"""


def test_slowly_growing_memory_reaches_a_limit_too() -> None:
    backend = local(HOARD, memory_mebibytes=128)
    try:
        backend.ready(never)
        bad, good = backend.exchange([GradeRequest("user", "bomb", {}), GradeRequest("user", "x", {})], never)
        assert str(bad.outcome).startswith(
            ("MemoryError", "the worker was killed: users' code used over 128 MiB")
        )
        assert good == Graded(1.0)
    finally:
        backend.close()


DAEMON = """
import os, time
def grade(completion, row):
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            time.sleep(300)
        os._exit(0)
    os.wait()
    return 1
"""


def test_a_process_that_detaches_from_its_worker_is_killed() -> None:
    backend = local(DAEMON)
    try:
        backend.ready(never)
        assert backend._process is not None
        server = backend._process.pid
        assert backend.exchange([GradeRequest("user", "x", {})], never) == [Graded(1.0)]
        until(lambda: len(tree_of(server)) == 3)
    finally:
        backend.close()


def test_a_killed_grader_process_loses_only_its_own_scores_and_is_restarted() -> None:
    source = "import os, time\ndef grade(c, r):\n    if c == 'wait': time.sleep(20)\n    return 1"
    ours = Grader(name="ours", regex=Regex(pattern="wait"))
    with Scorer([python(source, timeoutSeconds=30), ours]) as scorer:
        scorer.ready()
        (_, theirs), _ = scorer._backends[::-1]
        assert isinstance(theirs, backends.LocalBackend)
        assert theirs._process is not None
        threading.Timer(0.3, theirs._process.kill).start()
        batch = scorer.score([item("wait")] * 3)
        assert all("closed the connection" in score.errors["user"] for score in batch)
        assert [score.per_grader["ours"] for score in batch] == [1.0] * 3
        assert scorer.score([item("x")])[0].per_grader["user"] == 1.0


def test_users_code_may_import_numpy_within_the_memory_limit() -> None:
    source = "import numpy\ndef grade(c, r): return numpy.float32(0.5)"
    with Scorer([python(source, timeoutSeconds=5)]) as scorer:
        assert scorer.score([item("x")])[0].reward == 0.5


def test_closing_the_scorer_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    before = set(children_of(os.getpid()))
    with Scorer([python("def grade(c, r): return 1")], scratch_dir=str(tmp_path)) as scorer:
        scorer.ready()
        assert set(children_of(os.getpid())) > before
    assert set(children_of(os.getpid())) <= before
    assert list(tmp_path.iterdir()) == []


KILLED_TRAINER = """
from rft_api.graders import Grader, Python
from rft_graders.scorer import Scorer
from rft_graders.types import GradeItem

source = "import time\\ndef grade(c, r):\\n    time.sleep(600)"
with Scorer([Grader(name="user", python=Python(inline=source), timeout_seconds=600)]) as scorer:
    scorer.ready()
    print("ready", flush=True)
    scorer.score([GradeItem([], "x", {})])
"""


def test_a_killed_trainer_leaves_no_grader_process(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", KILLED_TRAINER]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as trainer:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == b"ready\n"
        _, *graders = tree_of(trainer.pid)
        assert len(graders) >= 2
        trainer.kill()
    until(lambda: not any(alive(pid) for pid in graders))


def alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


# --- the grader container -------------------------------------------------------------------


def started(
    tmp_path: Path, source: str, wait: float = 20, module: str = "rft_graders.serve"
) -> "subprocess.Popen[bytes]":
    config = GraderConfig(graders=[PythonGrader(name="user", inline=source, timeout_seconds=5)])
    (tmp_path / "graders.json").write_text(config.model_dump_json(by_alias=True, exclude_none=True))
    arguments = ["--socket", str(tmp_path / "s"), "--config", str(tmp_path / "graders.json")]
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments, "--wait", str(wait)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)},
    )


@pytest.mark.parametrize("module", ["rft_graders.serve", "rft_trainer.rewards.serve"])
def test_the_grader_container_connects_to_the_trainer_and_ends_with_it(tmp_path: Path, module: str) -> None:
    process = started(tmp_path, "def grade(c, r): return len(c) / 10", module=module)
    with Scorer([python("the trainer does not run this")], grader_socket=str(tmp_path / "s")) as scorer:
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o660
        scorer.ready()
        assert not (tmp_path / "s").exists()  # users' code in the same container cannot connect any more
        assert scorer.score([item("four")])[0].reward == 0.4
        process.send_signal(signal.SIGTERM)  # both containers get SIGTERM; the trainer decides when to end
        assert scorer.score([item("four")])[0].reward == 0.4
    assert process.wait(20) == 0


def test_the_loss_of_the_grader_container_ends_the_attempt(tmp_path: Path) -> None:
    process = started(tmp_path, "def grade(c, r): return 1")
    with Scorer([python("x")], grader_socket=str(tmp_path / "s")) as scorer:
        scorer.ready()
        process.kill()
        process.wait()
        with pytest.raises(TrainerError, match="see the logs of the grader container"):
            scorer.score([item("x")])


def test_the_grader_container_exits_if_no_trainer_listens(tmp_path: Path) -> None:
    assert started(tmp_path, "def grade(c, r): return 1", wait=0.3).wait(20) == 1


def test_an_invalid_configuration_file_ends_the_grader_container(tmp_path: Path) -> None:
    (tmp_path / "graders.json").write_text("{")
    from rft_graders.serve import main

    assert main(["--socket", "none", "--config", str(tmp_path / "graders.json")]) == 1


def test_a_grader_container_that_does_not_connect_ends_the_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "CONNECT_SECONDS", 0.1)
    with (
        Scorer([python("x")], grader_socket=str(tmp_path / "s")) as scorer,
        pytest.raises(TrainerError, match="did not connect"),
    ):
        scorer.ready()


@pytest.mark.parametrize(
    "sent", [b"\x80\x04not json\n", b'["list"]\n', b'{"hello": 1}\n', b"x" * 200_000, b""]
)
def test_a_peer_that_violates_the_protocol_ends_the_attempt(tmp_path: Path, sent: bytes) -> None:
    path = str(tmp_path / "s")
    with Scorer([python("x")], grader_socket=path) as scorer:

        def speak() -> None:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(path)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    peer.sendall(sent)

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(TrainerError):
            scorer.ready()
        thread.join()


def test_a_socket_left_by_an_earlier_attempt_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("left over")
    Listener(str(tmp_path / "s")).close()
    with pytest.raises(ConfigurationError, match="cannot listen"):
        Listener(str(tmp_path / "absent" / "s"))


def test_the_grader_process_imports_no_heavy_library() -> None:
    code = "import sys, rft_graders.serve; print('torch' in sys.modules or 'numpy' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert done.stdout.strip() == b"False"


def test_the_memory_of_a_process_is_measured_and_zero_without_one() -> None:
    assert 2**20 < memory_of([os.getpid()]) < 2**40
    assert memory_of([2**22 + 1]) == 0
