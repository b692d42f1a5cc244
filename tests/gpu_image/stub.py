"""Builds a stub of NVIDIA's driver library libcuda, so that vLLM's GPU build can be imported without GPUs."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

NAME = "libcuda.so.1"
_SYMBOL = re.compile(r" U (cu[A-Z]\w*)$", re.MULTILINE)
_NO_DEVICE = 100
"""CUDA_ERROR_NO_DEVICE."""


def undefined(libraries: Iterable[Path]) -> set[str]:
    """Return the names of the driver's functions that the extension modules need."""
    found: set[str] = set()
    for library in libraries:
        listed = subprocess.run(
            ["nm", "-D", "--undefined-only", str(library)], capture_output=True, text=True, check=True
        )
        found.update(_SYMBOL.findall(listed.stdout))
    return found


def source(names: Iterable[str]) -> str:
    """Return C code of functions with these names. Each function reports that there is no device."""
    return "".join(f"int {name}(void) {{ return {_NO_DEVICE}; }}\n" for name in sorted(names))


def build(folder: Path, libraries: Iterable[Path]) -> Path:
    """Write the stub library for these extension modules into ``folder``, and return its path."""
    code = folder / "libcuda.c"
    code.write_text(source(undefined(libraries)), encoding="utf-8")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(folder / NAME), str(code)], check=True)
    return folder / NAME
