"""The built-in graders that may need exponential time or all memory: regex, math and jsonSchema. They run in
worker processes, like users' code, because a worker can be killed.

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
    """Convert a grader of kind regex, math or jsonSchema to a python grader, which can run in a worker
    process. Its source is generated. Return None for graders of other kinds.
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
    """Return Python source with a function ``grade``, which scores a completion by the regular expression of
    a ``regex`` grader.
    """
    method = "fullmatch" if settings.full_match else "search"
    return (
        f"import re\nPATTERN = re.compile({settings.pattern!r})\n"
        f"def grade(completion, row):\n    return PATTERN.{method}(completion) is not None\n"
    )


def math_source(settings: Math) -> str:
    """Return Python source with a function ``grade``, which scores a completion by symbolic equality with the
    row's field, for a ``math`` grader.

    The source makes one comparison while it is loaded. This loads the grammar of LaTeX, which would otherwise
    count in the time limit of the first score.
    """
    return (
        f"{_our_path()}from rft_graders.symbolic import equal\n"
        "equal('$x^2$', {'warm': 'x x'}, 'warm')\n"
        f"def grade(completion, row):\n    return equal(completion, row, {settings.field!r})\n"
    )


def json_schema_source(settings: JsonSchema) -> str:
    """Return Python source with a function ``grade``, which validates a completion against the JSON schema of
    a ``jsonSchema`` grader.
    """
    return (
        f"{_our_path()}from rft_graders.json_schema import valid, validator\n"
        f"SCHEMA = validator({settings.schema_text!r})\n"
        f"def grade(completion, row):\n    return valid(completion, SCHEMA)\n"
    )


def _our_path() -> str:
    """Return lines of Python for the source of a grader. They extend ``sys.path``, so that a worker process
    can import rft_api and rft_graders.
    """
    folders = sorted({os.fspath(Path(package.__path__[0]).parent) for package in (rft_api, rft_graders)})
    return f"import sys\nsys.path += {folders!r}\n"
