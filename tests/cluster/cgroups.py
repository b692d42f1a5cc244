"""The node's cgroup: a folder with the same name in every cgroup hierarchy of the host."""

from pathlib import Path

from tests.cluster.shell import ClusterError, say

REQUIRED = ("cpu", "cpuset", "memory")
WANTED = ("pids",)


def hierarchies() -> list[Path]:
    """Return the mount points of all cgroup hierarchies (v1 and v2)."""
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(words[1]) for words in lines if words[2] in ("cgroup", "cgroup2")]


def check_controllers() -> None:
    """Check the cgroup controllers. Print which optional ones are missing.

    Raises:
        ClusterError: a controller that the kubelet requires is missing.
    """
    lines = Path("/proc/cgroups").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    enabled = {name for name, _, _, is_enabled in fields if is_enabled == "1"}
    if missing := [name for name in REQUIRED if name not in enabled]:
        raise ClusterError(f"the kernel has no cgroup controller {', '.join(missing)}")
    for name in WANTED:
        if name not in enabled:
            say(f"the kernel has no cgroup controller {name}: limits of pods for {name} have no effect")


def make_cgroup(name: str) -> None:
    """Create the cgroup in every hierarchy.

    In cgroup v1 a new cpuset has no CPUs and no memory nodes, so it accepts no processes. This function
    copies the settings of the parent cpuset.
    """
    for root in hierarchies():
        folder = root / name
        folder.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if (root / setting).exists():
                (folder / setting).write_text((root / setting).read_text())


def remove_cgroup(name: str) -> None:
    """Remove the cgroup and all cgroups below it. Their processes must have ended."""
    for root in hierarchies():
        folder = root / name
        if folder.exists():
            children = [path for path in folder.rglob("*") if path.is_dir()]
            for child in sorted(children, key=lambda path: len(path.parts), reverse=True):
                child.rmdir()
            folder.rmdir()
