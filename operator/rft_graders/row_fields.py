"""The fields of a dataset's row that graders read, and what is wrong with them in a row."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rft_api.graders import Grader
from rft_graders.numbers import expected_number, is_blank
from rft_graders.template import row_fields
from rft_run.rows.strict import kind

Required = Mapping[str, Mapping[str, Grader]]
"""The graders that read each field of a row: a mapping from field to grader's name to grader."""


def required_fields(graders: Iterable[Grader]) -> dict[str, dict[str, Grader]]:
    """Return the graders that read each field of a row: ``{field: {name of the grader: grader}}``."""
    needs: dict[str, dict[str, Grader]] = {}
    for grader in graders:
        settings = grader.exact_match or grader.numeric or grader.math
        fields = [settings.field] if settings is not None else []
        if (text := grader.text_similarity) is not None:
            fields = [text.field] if text.reference is None else row_fields(text.reference)
            fields += row_fields(text.input)
        if (check := grader.string_check) is not None:
            fields = [*row_fields(check.input), *row_fields(check.reference)]
        if grader.model is not None:
            fields = row_fields(grader.model.prompt)
        for field in fields:
            needs.setdefault(field, {})[grader.name] = grader
    return needs


def _takes_any(grader: Grader) -> bool:
    """Return whether a grader inserts the values of a row's fields into a text, such as a judge's prompt.

    Then a value may also be an object or a list.
    """
    text = grader.text_similarity
    return (
        grader.model is not None
        or grader.string_check is not None
        or (text is not None and text.reference is not None)
    )


def unmet(fields: Mapping[str, Any], required: Required) -> Iterator[str]:
    """Yield a problem for each field that a grader cannot use, because it is missing or has a wrong value."""
    for field, graders in required.items():
        value = fields.get(field)
        names = ", ".join(graders)
        if value is None:
            yield f"field {field} is missing (grader {names})"
        elif isinstance(value, list | dict) and not all(map(_takes_any, graders.values())):
            yield f"field {field} is {kind(value)}, but grader {names} needs text or a number"
        else:
            for name, grader in graders.items():
                if grader.math is not None and is_blank(value):
                    yield f"field {field} contains no expression (grader {name})"
                if grader.numeric is not None and expected_number(value, grader.numeric) is None:
                    yield f"field {field} is {value!r:.60}, not one number such as 1234.5 (grader {name})"
