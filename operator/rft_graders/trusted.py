"""Built-in graders that may need exponential time or all memory. They run in workers, like users' code.

Matching a pattern and computing an integer power hold Python's GIL, so a thread of the trainer could not stop
these operations.
"""

import os
from pathlib import Path

import rft_api
import rft_graders
from rft_api.graders import Grader, JsonSchema, Math, Regex
from rft_run.config import PythonGrader


def in_workers(grader: Grader) -> PythonGrader | None:
    """Return a grader of kind regex, math or jsonSchema as a python grader for a worker process. Return None
    for graders of other kinds.
    """
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
    """Return Python source with a grade function that matches the pattern of a ``regex`` grader."""
    method = "fullmatch" if settings.full_match else "search"
    return (
        f"import re\nPATTERN = re.compile({settings.pattern!r})\n"
        f"def grade(completion, row):\n    return PATTERN.{method}(completion) is not None\n"
    )


def math_source(settings: Math) -> str:
    """Return Python source with a grade function for symbolic equality, for a ``math`` grader.

    The source makes one comparison while it loads, which loads the grammar of LaTeX. Otherwise the first
    score would load the grammar, within its timeout.
    """
    return (
        f"{_our_path()}from rft_graders.symbolic import equal\n"
        "equal('$x^2$', {'warm': 'x x'}, 'warm')\n"
        f"def grade(completion, row):\n    return equal(completion, row, {settings.field!r})\n"
    )


def json_schema_source(settings: JsonSchema) -> str:
    """Return Python source with a grade function that validates JSON, for a ``jsonSchema`` grader."""
    return (
        f"{_our_path()}from rft_graders.json_schema import valid, validator\n"
        f"SCHEMA = validator({settings.schema_text!r})\n"
        f"def grade(completion, row):\n    return valid(completion, SCHEMA)\n"
    )


def _our_path() -> str:
    """Return Python lines that let a worker import rft_api and rft_graders: they extend its ``sys.path``."""
    folders = sorted({os.fspath(Path(package.__path__[0]).parent) for package in (rft_api, rft_graders)})
    return f"import sys\nsys.path += {folders!r}\n"
