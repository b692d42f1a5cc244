"""Graders of ours that can take exponential time or all memory: they run in workers as users' code does.

A pattern and an integer power hold the interpreter's lock, so no thread of the trainer could end them.
"""

import os
from pathlib import Path

import rft_api
import rft_trainer
from rft_api.graders import Grader, JsonSchema, Math, Regex
from rft_api.runconfig import PythonGrader


def in_workers(grader: Grader) -> PythonGrader | None:
    """Return the code of a grader that runs in a worker, None for the others."""
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

    Its first comparison loads the grammar, which would otherwise count against the first score's time.
    """
    return (
        f"{_our_path()}from rft_trainer.rewards.symbolic import equal\n"
        "equal('$x^2$', {'warm': 'x x'}, 'warm')\n"
        f"def grade(completion, row):\n    return equal(completion, row, {settings.field!r})\n"
    )


def json_schema_source(settings: JsonSchema) -> str:
    """Return a Python grader for the schema."""
    return (
        f"{_our_path()}from rft_trainer.rewards.json_schema import valid, validator\n"
        f"SCHEMA = validator({settings.schema_text!r})\n"
        f"def grade(completion, row):\n    return valid(completion, SCHEMA)\n"
    )


def _our_path() -> str:
    """Return the lines with which a worker finds our packages: its environment names no path."""
    folders = sorted({os.fspath(Path(package.__path__[0]).parent) for package in (rft_api, rft_trainer)})
    return f"import sys\nsys.path += {folders!r}\n"
