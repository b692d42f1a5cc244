"""Graders that are pure functions of a completion and its row, and the kinds still to come."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from rft_api.graders import ExactMatch, Grader, Numeric, Regex
from rft_trainer.errors import ConfigurationError
from rft_trainer.rewards.numbers import expected_number, extract_number

Builtin = Callable[[str, Mapping[str, Any]], float]
"""(completion, row) -> raw score; raises ValueError when the row does not serve."""

NOT_AVAILABLE = {
    "math": "math",
    "json_schema": "jsonSchema",
    "text_similarity": "textSimilarity",
    "http": "http",
    "model": "model",
}
"""Kinds that the API knows and this version of the trainer does not run."""


def check_available(grader: Grader) -> None:
    """Raise ConfigurationError for a kind that cannot run yet, and for settings that cannot work."""
    if grader.kind in NOT_AVAILABLE:
        raise ConfigurationError(
            f"grader {grader.name}: {NOT_AVAILABLE[grader.kind]} is not available in this version"
        )
    if grader.scale is not None and not grader.scale.min < grader.scale.max:
        raise ConfigurationError(f"grader {grader.name}: scale.min is not below scale.max")
    if grader.regex is not None:
        try:
            re.compile(grader.regex.pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ConfigurationError(f"grader {grader.name}: regex does not compile: {error}") from error


def exact_match(completion: str, row: Mapping[str, Any], settings: ExactMatch) -> float:
    """Return 1.0 when the completion is the field's text. A number in the field means its JSON text."""
    expected, actual = _text(row, settings.field), completion
    if settings.strip:
        expected, actual = expected.strip(), actual.strip()
    if settings.ignore_case:
        expected, actual = expected.casefold(), actual.casefold()
    return float(expected == actual)


def numeric(completion: str, row: Mapping[str, Any], settings: Numeric) -> float:
    """Return 1.0 when the completion's number is within the tolerance of the field's; no number is 0.0."""
    expected = expected_number(row.get(settings.field), settings)
    if expected is None:
        raise ValueError(f"field {settings.field} holds no number")
    actual = extract_number(completion, settings)
    if actual is None:
        return 0.0
    return float(abs(actual - expected) <= Decimal(str(settings.tolerance)))


def regex_source(settings: Regex) -> str:
    """Return a Python grader for the pattern.

    A pattern can take exponential time, and ``re`` holds the interpreter's lock meanwhile: it runs
    in a worker with a deadline like any other user code.
    """
    method = "fullmatch" if settings.full_match else "search"
    return (
        f"import re\nPATTERN = re.compile({settings.pattern!r})\n"
        f"def grade(completion, row):\n    return PATTERN.{method}(completion) is not None\n"
    )


def builtin(grader: Grader) -> Builtin | None:
    """Return the function of a grader that runs in the trainer itself, None for the others."""
    if (exact := grader.exact_match) is not None:
        return lambda completion, row: exact_match(completion, row, exact)
    if (number := grader.numeric) is not None:
        return lambda completion, row: numeric(completion, row, number)
    return None


def _text(row: Mapping[str, Any], field: str) -> str:
    """Return a field's text. Raises ValueError when there is none."""
    value = row.get(field)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"field {field} holds no text")
