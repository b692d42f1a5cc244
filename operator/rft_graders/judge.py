"""Grader ``model``: a judge behind an OpenAI-compatible endpoint, one request per completion."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from rft_api.graders import Grader, Scale
from rft_graders.calls import Call, score
from rft_graders.client import GradeRequest, Outcome
from rft_graders.numbers import find_numbers
from rft_graders.protocol import encode
from rft_graders.service import MAX_BODY_BYTES
from rft_graders.template import filled, parts

MAX_TOKENS = 512
"""Most tokens of a judge's answer: enough for a paragraph of reasoning."""

_PATH = "/chat/completions"
_READ_CHARACTERS = 20_000
"""Number of characters that are read from the end of an answer, where the score is."""

_OUT_OF = re.compile(r"(?<![\w./])(-?[0-9]+(?:\.[0-9]+)?)\s*/\s*([0-9]+(?:\.[0-9]+)?)(?![\w/]|\.[0-9])")


class Judge:
    """Requests to a judge model, and the scores in its answers."""

    def __init__(self, grader: Grader) -> None:
        """Read address, instruction and scale. Raises TemplateProblem for an invalid instruction."""
        assert grader.model is not None
        parts(grader.model.prompt)
        base = grader.model.url.rstrip("/")
        self.url = base if base.endswith(_PATH) else base + _PATH
        self._settings = grader.model
        self._scale = grader.scale

    def calls(self, requests: Sequence[GradeRequest]) -> Iterator[Call]:
        """Yield one call per request."""
        for index, request in enumerate(requests):
            try:
                yield Call((index,), self._body(request))
            except ValueError as error:
                yield Call((index,), error)

    def outcomes(self, answer: Any, count: int) -> list[Outcome]:
        """Return the outcome. Raises ValueError for an answer without a text or a score."""
        del count  # always one
        return [score(parse_score(_text(answer), self._scale))]

    def _body(self, request: GradeRequest) -> bytes:
        text = filled(self._settings.prompt, request.completion, request.row)
        body = encode(
            {
                "model": self._settings.model,
                "messages": [{"role": "user", "content": text}],
                "temperature": 0,
                "max_tokens": MAX_TOKENS,
            }
        )
        if len(body) > MAX_BODY_BYTES:
            raise ValueError(f"the judge's prompt is larger than {MAX_BODY_BYTES} bytes")
        return body


def parse_score(text: str, scale: Scale | None) -> float:
    """Return the score in a judge's answer: in the last JSON object with a ``score``, else the last number.

    "8/10" counts as 8 where 10 is the scale's maximum. Raises ValueError for an answer without a score.
    """
    text = text[-_READ_CHARACTERS:]
    if objects := list(_objects(text)):
        value = objects[-1]["score"]
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        text = value if isinstance(value, str) else ""
    numbers = find_numbers(_OUT_OF.sub(lambda match: _points(match, scale), text))
    if not numbers:
        raise ValueError("the judge named no score")
    return float(numbers[-1])


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects in a text that have the key ``score``."""
    position = text.find("{")
    while position >= 0:
        try:
            value, end = json.JSONDecoder().raw_decode(text, position)
        except (ValueError, RecursionError):
            value, end = None, position + 1
        if isinstance(value, dict) and "score" in value:
            yield value
        position = text.find("{", end)


def _points(match: re.Match[str], scale: Scale | None) -> str:
    """Return the points of "points / maximum"; leave other fractions as they are."""
    return match[1] if scale is not None and float(match[2]) == scale.max else match[0]


def _text(answer: Any) -> str:
    try:
        text = answer["choices"][0]["message"]["content"]
    except (TypeError, KeyError, IndexError) as error:
        raise ValueError("the judge's answer has no choices[0].message.content") from error
    if not isinstance(text, str):
        raise ValueError("the judge answered with no text")
    return text
