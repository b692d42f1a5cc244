"""Describes where a benchmark ran: the processor, and the commit of this checkout."""

import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def processor() -> str:
    """Return the name of this machine's processor, or its architecture if the name is not known."""
    found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return found[0].split(":")[1].strip() if found else platform.machine()


def commit() -> str:
    """Return the commit of this checkout, and whether it has uncommitted changes."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return said.stdout.strip() or "unknown"
