"""Keeps users' code from changing the limits and priorities of other processes.

Linux allows a process to change the resource limits of every other process of its UID, by ``prlimit``. So a
program that a grader starts could set the limits of other workers to 0 bytes of memory or 0 seconds of CPU
time. Landlock does not prevent this. A seccomp filter does: in a worker and in all processes that it starts,
the system calls for limits and priorities work only on the calling process itself.

This module imports only the standard library.
"""

import ctypes
import errno
import os
import struct
from typing import NamedTuple

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000  # SECCOMP_RET_ERRNO; the number of the error is added

# Offsets in struct seccomp_data. Each argument has 8 bytes, of which a PID uses the lower 4.
_NUMBER, _ARCHITECTURE = 0, 4
_ARGUMENTS = 16

_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_X32 = 0x40000000
"""On x86-64, system calls with this number or a higher one belong to a second set (x32), which ordinary
programs do not use."""

_PROCESS = 0
"""The value of setpriority's argument ``which`` that selects one process."""
_PROCESS_IO = 1
"""The value of ioprio_set's argument ``which`` that selects one process."""


class _Numbers(NamedTuple):
    """The numbers of one processor architecture in Linux: its own number for seccomp (``audit``), and the
    number of each system call that the filter restricts.
    """

    audit: int
    prlimit: int
    sched_setscheduler: int
    sched_setparam: int
    sched_setattr: int
    setpriority: int
    ioprio_set: int


MACHINES = {
    "x86_64": _Numbers(0xC000003E, 302, 144, 142, 314, 141, 251),
    "aarch64": _Numbers(0xC00000B7, 261, 119, 118, 274, 140, 30),
    "riscv64": _Numbers(0xC00000F3, 261, 119, 118, 274, 140, 30),
}
"""The processor architectures for which the filter can be made, by their names in ``uname``."""


def install() -> bool:
    """Install a filter of system calls in this process. Then this process and the processes that it starts
    cannot change the limits and priorities of other processes. Nothing can remove the filter.

    The process must have only one thread, and must have set PR_SET_NO_NEW_PRIVS. Return True if the filter is
    installed. Return False if the kernel has no filters, or if the architecture is not in ``MACHINES``.
    Raises OSError if the kernel refuses the filter for another reason.
    """
    numbers = MACHINES.get(os.uname().machine)
    if numbers is None or struct.calcsize("P") != 8:
        return False
    code = program(numbers)
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_of = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filter_of, 0, 0) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(number, f"seccomp: {os.strerror(number)}")


def program(numbers: _Numbers) -> bytes:
    """Return the seccomp filter for one architecture as instructions of classic BPF, 8 bytes each.

    The filter refuses these system calls with EPERM, unless they are for the calling process (PID 0):

    - prlimit, except to read limits
    - sched_setscheduler, sched_setparam, sched_setattr
    - setpriority, ioprio_set

    It refuses with ENOSYS all system calls of another architecture, for example from 32-bit programs, because
    their numbers have another meaning. It allows all other system calls.
    """
    refuse = _instruction(_RETURN, _REFUSE | errno.EPERM)
    allow = _instruction(_RETURN, _ALLOW)
    foreign = _instruction(_RETURN, _REFUSE | errno.ENOSYS)
    parts = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_JUMP_IF_EQUAL, numbers.audit, 1, 0),
        foreign,
        _instruction(_LOAD, _NUMBER),
        _instruction(_JUMP_IF_AT_LEAST, _X32, 0, 1),
        foreign,
    ]

    def only(number: int, *checks: bytes) -> None:
        """Add instructions that are executed only for the system call ``number``. Other system calls skip
        them.
        """
        parts.append(_instruction(_JUMP_IF_EQUAL, number, 0, len(checks)))
        parts.extend(checks)

    own = _instruction(_LOAD, _argument(0)), _instruction(_JUMP_IF_EQUAL, 0, 0, 1), allow
    reads = (
        *(_instruction(_LOAD, _argument(2)), _instruction(_JUMP_IF_EQUAL, 0, 0, 3)),
        *(_instruction(_LOAD, _argument(2) + 4), _instruction(_JUMP_IF_EQUAL, 0, 0, 1), allow),
    )
    only(numbers.prlimit, *own, *reads, refuse)
    for number in (numbers.sched_setscheduler, numbers.sched_setparam, numbers.sched_setattr):
        only(number, *own, refuse)
    for number, which in ((numbers.setpriority, _PROCESS), (numbers.ioprio_set, _PROCESS_IO)):
        only(
            number,
            *(_instruction(_LOAD, _argument(0)), _instruction(_JUMP_IF_EQUAL, which, 0, 3)),
            *(_instruction(_LOAD, _argument(1)), _instruction(_JUMP_IF_EQUAL, 0, 0, 1), allow),
            refuse,
        )
    return b"".join([*parts, allow])


def _argument(place: int) -> int:
    """Return where a system call's argument is in struct seccomp_data: the offset in bytes of its lower half.

    ``place``: the index of the argument, from 0. All architectures in ``MACHINES`` are little-endian.
    """
    return _ARGUMENTS + 8 * place


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
