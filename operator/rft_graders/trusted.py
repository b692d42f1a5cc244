"""Built-in graders that can take exponential time or all memory. They run in workers, like users' code.

Matching a pattern and computing an integer power hold Python's GIL, so no thread of the trainer could stop
them.
"""

import os
from pathlib import Path

import rft_api
import rft_graders
from rft_api.graders import Grader, JsonSchema, Math, Regex
from rft_run.config import PythonGrader


def in_workers(grader: Grader) -> PythonGrader | None:
    """Return the Python source of a grader that runs in a worker, None for other graders."""
    if grader.regex is not None:
        source = regex_source(grader.regex)
    elif grader.math is not None:
        source = math_source(grader.math)
    elif grader.json_schema is not None:
        source = json_schema_source(grader.json_schema)
    else:
        return None
    return PythonGrader(name=grader.name, inline=source, timeout_seconds=grader.timeout_seconds)


def regex_source(settings: Regex) -> str:
    """Return a Python grader for the pattern."""
    method = "fullmatch" if settings.full_match else "search"
    return (
        f"import re\nPATTERN = re.compile({settings.pattern!r})\n"
        f"def grade(completion, row):\n    return PATTERN.{method}(completion) is not None\n"
    )


def math_source(settings: Math) -> str:
    """Return a Python grader for symbolic equality.

    The source compares once while it loads. That loads the grammar, which else counts as time of the first
    score.
    """
    return (
        f"{_our_path()}from rft_graders.symbolic import equal\n"
        "equal('$x^2$', {'warm': 'x x'}, 'warm')\n"
        f"def grade(completion, row):\n    return equal(completion, row, {settings.field!r})\n"
    )


def json_schema_source(settings: JsonSchema) -> str:
    """Return a Python grader for the schema."""
    return (
        f"{_our_path()}from rft_graders.json_schema import valid, validator\n"
        f"SCHEMA = validator({settings.schema_text!r})\n"
        f"def grade(completion, row):\n    return valid(completion, SCHEMA)\n"
    )


def _our_path() -> str:
    """Return the lines that add our packages to a worker's path, which its environment does not contain."""
    folders = sorted({os.fspath(Path(package.__path__[0]).parent) for package in (rft_api, rft_graders)})
    return f"import sys\nsys.path += {folders!r}\n"
