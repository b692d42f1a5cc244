"""Grader ``model``: a judge behind an OpenAI-compatible endpoint, one request per completion."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from rft_api.graders import Grader, Scale
from rft_graders.calls import Call, score
from rft_graders.client import GradeRequest, Outcome
from rft_graders.numbers import find
from rft_graders.protocol import encode
from rft_graders.service import MAX_BODY_BYTES
from rft_graders.template import filled, parts
from rft_graders.text import normalized
from rft_graders.thought import answer

_PATH = "/chat/completions"
_READ_CHARACTERS = 20_000
"""Number of characters that are read from the end of an answer, where the score is."""

_N = r"-?[0-9]+(?:\.[0-9]+)?"
_OUT_OF = re.compile(
    rf"(?<![\w./,])({_N})[^\w\n/]{{0,3}}(?:points?|stars?|Punkte)?[^\w\n/]{{0,3}}"
    rf"(/|\b(?:out\s+of|of|von|sur|slash|over|de|su)\b)\s*(?:an?|the|possible|maximum|max)?\s*({_N})(?![\w/]|[.,][0-9])"
)
_RANGE = re.compile(rf"({_N})(?:\s*\([^()0-9]*\))?\s*(?:-|\u2013|to|and|bis|und|\u00e0|a)\s*({_N})(?![\w/]|[.,][0-9])")
_MARKDOWN = re.compile(r"[*`]|(?<!\w)_(?=[0-9])|(?<=[0-9])_(?!\w)")


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

    def outcomes(self, reply: Any, count: int) -> list[Outcome]:
        """Return the outcome. Raises ValueError for an answer without a text or a score."""
        del count  # always one
        return [score(parse_score(_text(reply), self._scale, cut=_is_cut(reply)))]

    def _body(self, request: GradeRequest) -> bytes:
        text = filled(self._settings.prompt, request.completion, request.row)
        body = encode(
            {
                "model": self._settings.model,
                "messages": [{"role": "user", "content": text}],
                "temperature": 0,
                "max_tokens": self._settings.max_tokens,
            }
        )
        if len(body) > MAX_BODY_BYTES:
            raise ValueError(f"the judge's prompt is larger than {MAX_BODY_BYTES} bytes")
        return body


def parse_score(text: str, scale: Scale | None, *, cut: bool = False) -> float:
    """Return the score in a judge's answer: in the last JSON object with a ``score``, else the only number in it.

    "8/10" and "8 out of 10" are 8 where 10 is the scale's maximum. Raises ValueError for an answer without a score,
    for one with several numbers of which none is clearly the score, and for a ``cut`` one without an object.
    """
    text = answer(text[-_READ_CHARACTERS:]) or ""
    if objects := list(_objects(text)):
        value = objects[-1]["score"]
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        text, cut = (value, False) if isinstance(value, str) else ("", False)
    if cut:
        raise ValueError("the judge's answer was cut before its score: raise model.maxTokens")
    return _in_prose(text, scale)


def _in_prose(text: str, scale: Scale | None) -> float:
    """Return the score in prose. Raises ValueError where it is not clear."""
    low, high = (scale.min, scale.max) if scale is not None else (0.0, 1.0)
    text = _MARKDOWN.sub("", normalized(text))
    text = _RANGE.sub(lambda m: " " if (float(m[1]), float(m[2])) == (low, high) else m[0], text)
    points = [float(m[1]) for m in _OUT_OF.finditer(text) if float(m[3]) == high]
    rest = _OUT_OF.sub(lambda m: m[0] if m[2] == "/" and float(m[3]) != high else " ", text)
    rest = re.sub(rf"\b(?:out of|of)\s+{_N}", " ", rest)
    found = [] if points else [place.value for place in find(rest)]
    values = {*points, *found}
    if not values:
        raise ValueError("the judge named no score")
    if len(values) > 1 or None in values:
        raise ValueError("the judge named several numbers: ask it for a JSON object with the key score alone")
    return float(values.pop() or 0.0)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the outermost JSON objects in a text that have the key ``score``."""
    position = text.find("{")
    while position >= 0:
        try:
            value, end = json.JSONDecoder().raw_decode(text, position)
        except (ValueError, RecursionError):
            value, end = None, position + 1
        if isinstance(value, dict) and "score" in value:
            yield value
        elif isinstance(value, dict):
            end = position + 1  # an object inside it may have one
        position = text.find("{", end)


def _is_cut(reply: Any) -> bool:
    """Return whether the judge's server says that the reply ended at its limit."""
    try:
        return bool(reply["choices"][0].get("finish_reason") == "length")
    except (TypeError, KeyError, IndexError, AttributeError):
        return False


def _text(answer: Any) -> str:
    try:
        text = answer["choices"][0]["message"]["content"]
    except (TypeError, KeyError, IndexError) as error:
        raise ValueError("the judge's answer has no choices[0].message.content") from error
    if not isinstance(text, str):
        raise ValueError("the judge answered with no text")
    return text
