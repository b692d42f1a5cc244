"""No module imports a test module. Code that several test modules need is in a ``*_support.py``."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _imported(source: Path) -> set[str]:
    """Return the dotted names that a file imports. ``from a import b`` gives ``a`` and ``a.b``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_no_module_imports_a_test_module() -> None:
    tests = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.glob("tests/**/test_*.py")
    }
    sources = [path for folder in ("tests", "bench") for path in (ROOT / folder).rglob("*.py")]
    # Parsing all files takes seconds, so only files in which a test module's name occurs are parsed.
    named = re.compile(rf"\b(?:{'|'.join(name.rpartition('.')[2] for name in tests)})\b")
    suspects = [path for path in sources if named.search(path.read_text(encoding="utf-8"))]
    importing = {
        str(path.relative_to(ROOT)): found for path in suspects if (found := _imported(path) & tests)
    }
    assert importing == {}
