"""The syntax trees of all modules of the programs, for tests of how the code is written."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = ("operator", "trainer-image", "scripts", "bench")


@cache
def programs() -> dict[str, ast.Module]:
    """Return the syntax tree of each module of all programs. The key is the module's path."""
    paths = [path for folder in PROGRAMS for path in sorted((ROOT / folder).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in paths}
