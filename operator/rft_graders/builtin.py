"""The graders exactMatch, numeric, stringCheck and textSimilarity, and checks of graders' settings."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rapidfuzz import fuzz, utils
from rapidfuzz.distance import JaroWinkler, Levenshtein

from rft_api.graders import ExactMatch, Grader, Numeric, StringCheck, TextSimilarity
from rft_graders import similarity
from rft_graders.ahead import templates
from rft_graders.json_schema import SchemaProblem, validator
from rft_graders.numbers import close, expected_number, extract_number
from rft_graders.template import NoValue, TemplateProblem, filled, parts
from rft_run.errors import ConfigurationError

Builtin = Callable[[str, Mapping[str, Any]], float]
"""A function of a built-in grader. It gets a completion, and the row of the dataset with the messages of the
prompt. It returns the raw score, or raises ValueError if the row's field cannot be used.
"""

_SIMILARITY: dict[str, Callable[[str, str], float]] = {
    "levenshtein": Levenshtein.normalized_similarity,
    "jaroWinkler": JaroWinkler.similarity,
    "tokenSet": lambda first, second: fuzz.token_set_ratio(first, second) / 100,
    "fuzzy": lambda first, second: fuzz.WRatio(first, second, processor=utils.default_process) / 100,
    "bleu": similarity.bleu,
    "gleu": similarity.gleu,
    **{f"rouge{length}": partial(similarity.rouge, length=length) for length in range(1, 6)},
    "rougeL": similarity.rouge_longest,
}


def check_settings(grader: Grader) -> None:
    """Check the settings of a grader. Raise ConfigurationError if its scale, its regular expression, its JSON
    schema or one of its templates is not valid.
    """
    if grader.scale is not None and not grader.scale.min < grader.scale.max:
        raise ConfigurationError(f"grader {grader.name}: scale.min is not below scale.max; raise scale.max")
    if grader.regex is not None:
        try:
            re.compile(grader.regex.pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ConfigurationError(f"grader {grader.name}: regex does not compile: {error}") from error
    if grader.json_schema is not None:
        try:
            validator(grader.json_schema.schema_text)
        except SchemaProblem as error:
            raise ConfigurationError(f"grader {grader.name}: jsonSchema.schema: {error}") from error
    for field, template in templates(grader).items():
        try:
            parts(template)
        except TemplateProblem as error:
            raise ConfigurationError(f"grader {grader.name}: {field}: {error}") from error


def exact_match(completion: str, row: Mapping[str, Any], settings: ExactMatch) -> float:
    """Return 1.0 if the completion equals the text of the row's field, else 0.0.

    A number in the field is compared as text, such as "42". Raises ValueError if the field has no text,
    number or boolean.
    """
    expected, actual = _text(row, settings.field), completion
    if settings.strip:
        expected, actual = expected.strip(), actual.strip()
    if settings.ignore_case:
        expected, actual = expected.casefold(), actual.casefold()
    return float(expected == actual)


def numeric(completion: str, row: Mapping[str, Any], settings: Numeric) -> float:
    """Return 1.0 if the number in the completion and the number in the row's field differ by at most the
    tolerance, else 0.0. Also return 0.0 if the completion has no number.

    If only one of the two numbers has a percent sign, 20% equals 20 and also 0.2.

    Raises ValueError if the field has no number.
    """
    expected = expected_number(row.get(settings.field), settings)
    if expected is None:
        raise ValueError(f"field {settings.field} contains no number")
    actual = extract_number(completion, settings)
    return float(actual is not None and close(actual, expected, settings.tolerance))


def text_similarity(completion: str, row: Mapping[str, Any], settings: TextSimilarity) -> float:
    """Return the similarity of two texts, from 0 to 1, by the metric in ``settings``.

    One text is the row's field, or the template ``reference`` if it is set. The other text is the template
    ``input``, by default the completion. Names in the braces of a template are replaced first. If one of
    them reads a part of the completion's JSON that does not exist, the similarity is 0.0.

    Case matters, except for ``fuzzy`` and the ROUGE metrics. Spaces matter for ``levenshtein`` and
    ``jaroWinkler``.
    """
    try:
        expected = (
            _text(row, settings.field)
            if settings.reference is None
            else filled(settings.reference, completion, row)
        )
        return _SIMILARITY[settings.metric](expected, filled(settings.input, completion, row))
    except NoValue:
        return 0.0


def string_check(completion: str, row: Mapping[str, Any], settings: StringCheck) -> float:
    """Return 1.0 if the texts ``input`` and ``reference`` satisfy the ``operation``, else 0.0.

    Both texts are templates in ``settings``, in which names in braces are replaced. The operation is equals,
    notEquals or contains (``input`` contains ``reference``). If a template reads a part of the completion's
    JSON that does not exist, the result is 0.0 for every operation.
    """
    try:
        text = filled(settings.input, completion, row)
        reference = filled(settings.reference, completion, row)
    except NoValue:
        return 0.0
    if settings.ignore_case:
        text, reference = text.casefold(), reference.casefold()
    if settings.operation == "contains":
        return float(reference in text)
    return float((text == reference) == (settings.operation == "equals"))


def builtin(grader: Grader) -> Builtin | None:
    """Return the function that scores completions for a grader of kind exactMatch, numeric, textSimilarity or
    stringCheck. It runs in the trainer's process. Return None for other kinds.
    """
    if (exact := grader.exact_match) is not None:
        return lambda completion, row: exact_match(completion, row, exact)
    if (number := grader.numeric) is not None:
        return lambda completion, row: numeric(completion, row, number)
    if (compared := grader.text_similarity) is not None:
        return lambda completion, row: text_similarity(completion, row, compared)
    if (check := grader.string_check) is not None:
        return lambda completion, row: string_check(completion, row, check)
    return None


def _text(row: Mapping[str, Any], field: str) -> str:
    """Return the value of a row's field as text. A boolean becomes "true" or "false".

    Raises ValueError if the value is not a text, number or boolean.
    """
    value = row.get(field)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"field {field} contains no text")
