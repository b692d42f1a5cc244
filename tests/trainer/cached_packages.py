"""Published packages that tests use without their dependencies, installed into the cache of this checkout."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "packages"


@cache
def installed(*requirements: str) -> Path:
    """Install packages without their dependencies, if the cache lacks them. Return the folder with all.

    ``requirements``: names with versions, such as ``trl==1.16.0``. If they cannot be installed, the test is
    skipped with the reason.
    """
    folder = CACHE / "_".join(requirements)
    if not (folder / ".complete").exists():
        command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps"]
        command += ["--target", str(folder), *requirements]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if ended.returncode != 0:
            pytest.skip(f"{', '.join(requirements)} cannot be installed: {ended.stderr.strip()[-300:]}")
        (folder / ".complete").touch()
    return folder
