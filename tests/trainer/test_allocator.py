"""The trainer's process restarts itself with tcmalloc. It keeps its arguments, and loses no stop signal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rft_run.exit_codes import ExitCode
from rft_trainer.runtime import allocator

PROGRAM = """
import os, signal, sys
from rft_run.exit_codes import ExitCode
from rft_trainer.runtime import allocator
from rft_trainer.__main__ import StopFlag

should_stop = StopFlag()
print(os.getpid(), "tcmalloc" in open("/proc/self/maps").read(), should_stop(), sys.argv[1:], flush=True)
if not allocator.preloaded():
    execv = os.execv

    def asked_to_stop_in_between(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        execv(*arguments)

    os.execv = asked_to_stop_in_between
allocator.preload(should_stop)
print("went on", flush=True)
"""

needs_tcmalloc = pytest.mark.skipif(
    allocator.library() is None, reason="tcmalloc is not installed: apt-get install libtcmalloc-minimal4"
)


def run(program: Path, **variables: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"} | variables
    source = Path(allocator.__file__).parents[2]
    environment["PYTHONPATH"] = os.pathsep.join([str(source), str(source.parent / "operator")])
    command = [sys.executable, str(program), "--config", "a b"]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()


@needs_tcmalloc
def test_a_restart_with_tcmalloc_keeps_pid_arguments_and_a_stop_signal(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    first, second, last = run(program)
    pid = first.split()[0]
    assert first == f"{pid} False False ['--config', 'a b']"
    assert second == f"{pid} True True ['--config', 'a b']"
    assert last == "went on"


@needs_tcmalloc
def test_a_process_with_tcmalloc_is_not_restarted(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    (first, last) = run(program, LD_PRELOAD=str(allocator.library()))
    assert first.split()[1:3] == ["True", "False"]
    assert last == "went on"


ASKED_WHILE_IMPORTING = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "rft_run.config":
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Finder())
"""


def test_a_stop_signal_during_the_imports_stays_pending(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(ASKED_WHILE_IMPORTING)
    source = Path(allocator.__file__).parents[2]
    paths = map(str, (tmp_path, source, source.parent / "operator"))
    command = [sys.executable, "-m", "rft_trainer", "--config", str(tmp_path / "none.json")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.CONFIGURATION, done.stderr
