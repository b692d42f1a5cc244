"""Reduces the rights of a worker process before this process loads users' code.

This module imports only the standard library.

Programs that users' code starts inherit these limits:

- no new privileges: a setuid program gives none;
- fewer capabilities: only root has any, and root keeps only those for files, UIDs and the network;
- Landlock: each worker has its own domain. A process in the domain cannot reach the memory, the descriptors
  and the environment of a process outside, even if the process outside is dumpable. Since Linux 6.12 it also
  cannot send signals or connect to abstract sockets outside.

Access to files and to the network stays as it is (see docs/adr/0019).
"""

import ctypes
import enum
import os
import struct

PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38

_CAPABILITY_VERSION_3 = 0x20080522
_KEPT_CAPABILITIES = sum(1 << bit for bit in (0, 1, 3, 4, 6, 7, 10, 13, 18))
"""Capabilities that a worker keeps:

- for files: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SYS_CHROOT
- for other UIDs: SETGID, SETUID
- for the network: NET_BIND_SERVICE, NET_RAW

Other capabilities, such as SYS_PTRACE and KILL, give access to other processes.
"""

# The system calls of Landlock have these numbers on all architectures of Linux that Python supports.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1
_MAKE_BLOCK_DEVICE, _REFER = 1 << 11, 1 << 13
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1 << 0, 1 << 1
_FIRST_ABI_WITH_REFER, _FIRST_ABI_WITH_SCOPES = 2, 6


class Level(enum.IntEnum):
    """How strongly the kernel separates a worker process and the programs that it starts from other processes
    of the same user. A higher level is a stronger separation.
    """

    NONE = 0
    """The kernel does not separate them: the programs of two workers can reach each other's memory."""
    MEMORY = 1
    """A worker and the programs that it starts are in a Landlock domain of their own. They cannot reach the
    memory, descriptors and environment variables of processes outside this domain.
    """
    SIGNALS = 2
    """Like ``MEMORY``. Also, a worker and the programs that it starts cannot send signals to processes
    outside their domain, or connect to abstract sockets of these processes.
    """

    @property
    def text(self) -> str:
        """A sentence for the log that says what the kernel prevents at this level."""
        return {
            Level.NONE: "the kernel has no Landlock, so programs of two workers can reach each other's"
            " memory and send signals to all processes of the grader; Linux 5.19 or newer prevents access to"
            " memory, Linux 6.12 or newer also signals",
            Level.MEMORY: "the kernel's Landlock does not let a worker reach the memory of other processes,"
            " but lets it send them signals; Linux 6.12 or newer prevents both",
            Level.SIGNALS: "the kernel's Landlock does not let a worker reach the memory or the abstract"
            " sockets of other processes, or send them signals",
        }[self]


def set_dumpable(dumpable: bool) -> None:
    """Set whether other processes of the same UID may reach the memory, descriptors and environment of this
    process (PR_SET_DUMPABLE). False: they may not.

    A forked child has the setting of its parent. A program that this process starts is dumpable again.
    """
    _check(_libc().prctl(PR_SET_DUMPABLE, int(dumpable), 0, 0, 0), "prctl")


def confine(abi: int | None = None) -> Level:
    """Reduce the rights of this process and of all processes that it starts later. Return how strongly the
    kernel now separates them from other processes.

    The process must have only one thread. ``abi`` is the newest version of Landlock that may be used. None:
    any version may be used. Raises OSError if the kernel has Landlock but refuses it, for example if 16
    domains are nested already.
    """
    libc = _libc()
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    _drop_capabilities(libc)
    version = landlock_version() if abi is None else min(abi, landlock_version())
    if version >= _FIRST_ABI_WITH_SCOPES:
        _enter(libc, scopes=_SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS)
        return Level.SIGNALS
    if version >= _FIRST_ABI_WITH_REFER:
        # A domain must forbid something. This one forbids making block devices, which is impossible without
        # CAP_MKNOD anyway.
        _enter(libc, files=_MAKE_BLOCK_DEVICE | _REFER)
        return Level.MEMORY
    # A domain of Landlock's first version would forbid users' code to move a file into another folder.
    return Level.NONE


def landlock_version() -> int:
    """Return the version of the Landlock API that this process can use. Return 0 if the kernel has no
    Landlock, or if the container's seccomp profile does not allow it.
    """
    found = _libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    return max(0, int(found))


def _enter(libc: ctypes.CDLL, *, files: int = 0, scopes: int = 0) -> None:
    """Put this process into a new Landlock domain, which limits it and all processes that it starts later.
    Both arguments are bit masks of the kernel's Landlock API.

    - ``files``: the file operations that the domain forbids. One bit is an exception: with ``_REFER``, files
      may be moved from any folder to any other. Without it, some kernels would forbid such moves.
    - ``scopes``: what the domain forbids with regard to processes outside it: ``_SCOPE_SIGNALS`` forbids to
      send them signals, and ``_SCOPE_ABSTRACT_SOCKETS`` to connect to their abstract sockets.
    """
    attributes = struct.pack("=QQQ", files, 0, scopes)
    # A kernel accepts a structure with fields that it does not know, if these fields are 0. They are 0:
    # ``confine`` sets scopes only for kernels that know them.
    ruleset = _check(
        libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0)),
        "landlock_create_ruleset",
    )
    try:
        if files & _REFER:
            root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                rule = struct.pack("=Qi", _REFER, root)
                added = libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, ctypes.c_uint32(0))
                _check(added, "landlock_add_rule")
            finally:
                os.close(root)
        _check(libc.syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)), "landlock_restrict_self")
    finally:
        os.close(ruleset)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Drop all capabilities of this process that are not in ``_KEPT_CAPABILITIES``."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    sets = ctypes.create_string_buffer(struct.calcsize("=6I"))
    _check(libc.capget(header, sets), "capget")
    effective, permitted, _, *_ = struct.unpack("=6I", sets)
    kept = struct.pack("=6I", effective & _KEPT_CAPABILITIES, permitted & _KEPT_CAPABILITIES, 0, 0, 0, 0)
    _check(libc.capset(header, kept), "capset")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, name: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result
