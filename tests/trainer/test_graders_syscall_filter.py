"""The filter of system calls lets a process change its own limits and priorities, and not those of others."""

import errno
import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from rft_graders import syscall_filter

CODE = """
import ctypes, importlib.util, json, os, resource, subprocess, sys

spec = importlib.util.spec_from_file_location("syscall_filter", sys.argv[1])
syscall_filter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(syscall_filter)
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
other = os.getppid()
installed = syscall_filter.install()

def number_of(call):
    try:
        call()
    except OSError as refused:
        return refused.errno
    return 0

print(json.dumps([installed] + [number_of(call) for call in (
    lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
    lambda: resource.prlimit(0, resource.RLIMIT_CORE, (0, 0)),
    lambda: resource.prlimit(os.getpid(), resource.RLIMIT_CORE),
    lambda: os.nice(1),
    lambda: os.setpriority(os.PRIO_PROCESS, 0, 5),
    lambda: os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)),
    lambda: subprocess.run(["true"], check=True),
    lambda: resource.prlimit(other, resource.RLIMIT_CORE, resource.prlimit(other, resource.RLIMIT_CORE)),
    lambda: os.setpriority(os.PRIO_PROCESS, other, os.getpriority(os.PRIO_PROCESS, other)),
    lambda: os.setpriority(os.PRIO_USER, 0, 5),
    lambda: os.setpriority(os.PRIO_PGRP, 0, 5),
    lambda: os.sched_setscheduler(other, os.SCHED_OTHER, os.sched_param(0)),
)]))
"""


@pytest.mark.skipif(
    platform.machine() not in syscall_filter.MACHINES, reason="the filter does not know this architecture"
)
def test_only_limits_and_priorities_of_others_are_refused() -> None:
    file = str(Path(syscall_filter.__file__))
    done = subprocess.run([sys.executable, "-c", CODE, file], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [True, *[0] * 7, *[errno.EPERM] * 5], done.stderr


@pytest.mark.parametrize("machine", syscall_filter.MACHINES)
def test_every_jump_of_the_filter_stays_in_it_and_it_ends_with_a_decision(machine: str) -> None:
    code = syscall_filter.program(syscall_filter.MACHINES[machine])
    instructions = [code[place : place + 8] for place in range(0, len(code), 8)]
    for place, instruction in enumerate(instructions):
        jumps = instruction[2], instruction[3]
        assert place + 1 + max(jumps) < len(instructions) or instruction[0] == 6
    assert instructions[-1][0] == 6  # a return


def test_an_unknown_architecture_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscall_filter, "MACHINES", {})
    assert not syscall_filter.install()
