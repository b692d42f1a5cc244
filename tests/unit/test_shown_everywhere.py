"""Only one module of the CLI and one of the operator write to a terminal or a log.

Both first replace or remove control characters.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

OPERATOR = Path(__file__).parents[2] / "operator"
PLACES = {"rft_cli": "render/console.py", "rft_operator": "log_lines.py"}
"""For each package, the only module that may write to a terminal or a log."""
_STREAMS = ("stdout", "stderr", "__stdout__", "__stderr__")
_MODULES = ("sys", "typer", "click", "rich", "logging", "builtins")
_WRITERS = (
    "print",
    "Console",
    "StreamHandler",
    "basicConfig",
    "echo",
    "secho",
    "confirm",
    "prompt",
    "launch",
)


def written(source: str) -> Iterator[str]:
    """Yield each name that a module uses to write to a terminal or a log, with its line number."""
    for node in ast.walk(ast.parse(source)):
        name = ""
        if isinstance(node, ast.Attribute) and node.attr in _STREAMS and _is_module(node.value):
            name = node.attr
        elif isinstance(node, ast.Import):
            name = " ".join(each.name for each in node.names if each.name in _MODULES and each.asname)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _WRITERS:
            name = node.func.id
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = node.func.attr if node.func.attr in _WRITERS and _is_module(node.func.value) else ""
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported = {alias.name for alias in node.names} & {*_WRITERS, *_STREAMS}
            name = " ".join(sorted(imported)) if node.module.partition(".")[0] in _MODULES else ""
        if name:
            yield f"line {getattr(node, 'lineno', 0)}: {name}"


def _is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in _MODULES


@pytest.mark.parametrize("package", PLACES)
def test_nothing_is_written_elsewhere(package: str) -> None:
    place = OPERATOR / package / PLACES[package]
    assert place.is_file()
    found = {
        str(path.relative_to(OPERATOR)): lines
        for path in sorted((OPERATOR / package).rglob("*.py"))
        if path != place and (lines := list(written(path.read_text(encoding="utf-8"))))
    }
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "print('x')",
        "import sys\nsys.stdout.write('x')",
        "from sys import stderr\nstderr.write('x')",
        "import typer\ntyper.echo('x')",
        "from typer import echo",
        "import sys as system",
        "import rich\nrich.print('x')",
        "from rich import print",
        "from rich.console import Console\nConsole().print('x')",
        "import logging\nlogging.StreamHandler()",
        "import logging\nlogging.basicConfig(level=1)",
    ],
)
def test_each_way_to_write_is_found(source: str) -> None:
    assert list(written(source))


@pytest.mark.parametrize(
    "source", ["out().print('x')", "console.print('x')", "write('x')", "prompt = row.prompt"]
)
def test_the_one_place_may_be_used(source: str) -> None:
    assert not list(written(source))
