"""Reads the score or the label in the text of a judge model's reply.

A reply without a clear score or label is an error.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from rft_api.graders import Scale
from rft_graders.text import closing_brace, normalized
from rft_graders.thought import answer

_READ_CHARACTERS = 20_000
"""Number of characters at the end of a judge's reply that are read. The score is usually near the end."""
_ASK = "in the prompt, ask for a JSON object with only the key score"

_N = r"-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
_UNIT = r"(?:\s*(?:points?|stars?|punkten?|分|点|점))?"
_OUT_OF = re.compile(
    rf"({_N}){_UNIT}\s*(?:/|\b(?:out\s+of|of|von|sur|slash|over|de|su)\b)\s*({_N}){_UNIT}", re.IGNORECASE
)
_RANGE = re.compile(
    rf"(?:\b(?:on a scale )?(?:of|from)\s+)?({_N})\s*(?:-|\u2013|\bto\b)\s*({_N})", re.IGNORECASE
)
_FULL_MARKS = re.compile(rf"满分(?:是|为)?\s*({_N})\s*分|({_N})\s*(?:点満点|分)中")
_MARKDOWN = re.compile(r"[*`]|(?<!\w)_(?=[0-9])|(?<=[0-9])_(?!\w)|^[ \t]*(?:#+|>|-)\s", re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[.!;])\s+|(?<=。)")
_WITH_ONE_NUMBER = re.compile(rf"([^0-9]*?)({_N}){_UNIT}([^0-9]*)", re.IGNORECASE)
_EXPLAINED = re.compile(rf"([^0-9]*{_N}{_UNIT})\s*(?:\s[-\u2013\u2014]|[:;,]|\s\()\s?[^0-9]*", re.IGNORECASE)
"""Matches a sentence with a score, a punctuation mark, and a reason for the score that contains no number."""
_I_GIVE = re.compile(
    r"\bI(?: would|'d| will|'ll)? (?:give|rate|grade|award|assign|score)\b"
    r"(?: (?:this|the) (?:answer|response|completion))?",
    re.IGNORECASE,
)
_MARKS = re.compile(r"[\s:=.,!;()\"'\u2013\u2014。-]*")
_SCORE_NAMES = (
    "score scores scored rating rated grade verdict overall gebe bewertung punktzahl donne note"
    " 分数 评分 得分 总分 我给 我给这个回答 スコア 評価 점수"
)
_FILLERS = (
    "my the a an is it this that of as so thus therefore final total"
    " ich dieser antwort je cette réponse à la une"
)
_NAMES = frozenset(_SCORE_NAMES.split())
_WORDS = _NAMES | frozenset(_FILLERS.split())
"""Words that may stand beside the number in a sentence with a score, such as "my final score is". A sentence
with other words is ignored, because its number may mean something else.
"""
_LABEL = re.compile(r'"label"\s*:\s*"((?:[^"\\]|\\.){0,200})"')
_SENTENCE_CHARACTERS = 200
"""Maximum number of characters of a sentence with a score. Longer sentences are ignored."""


def parse_score(text: str, scale: Scale | None, *, cut: bool = False) -> float:
    """Return the raw score in a judge's reply: from the last JSON object with the key ``score``, else from a
    sentence such as "Score: 7".

    ``scale``: the range of scores, None for 0 to 1. ``cut``: whether the reply was truncated at its maximum
    number of tokens. Raises ValueError if the reply has no score or several scores. If ``cut`` is true, also
    raises ValueError if the reply has no complete JSON object with a score.
    """
    text = (answer(text) or "")[-_READ_CHARACTERS:]
    found = list(_scores(text))
    value = found[-1] if found else text
    if cut and (not found or value is None):
        raise ValueError("the judge's answer was cut before its score: raise model.maxTokens")
    if isinstance(value, str):
        return _in_prose(value, scale)
    if isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300:
        return float(value)
    raise ValueError(f"the judge named no score that can be read; {_ASK}")


def parse_label(text: str, labels: Sequence[str]) -> str:
    """Return the label that a judge's reply names.

    The label is the value under ``label`` of the last JSON object that has one. Otherwise it is the whole
    reply. Case, quotes and a punctuation mark at the end do not matter. Raises ValueError for a reply that
    names none of ``labels``.
    """
    text = (answer(text) or "")[-_READ_CHARACTERS:]
    known = {_bare(label): label for label in labels}
    found = _LABEL.findall(text)
    said = _bare(found[-1] if found else text)
    if said not in known:
        raise ValueError(
            f"the judge said {said!r:.60}, which is none of the labels {', '.join(labels)}; in the prompt,"
            " ask for exactly one of them"
        )
    return known[said]


def _bare(text: str) -> str:
    return text.strip().strip("\"'`*.!").strip().casefold()


def _scores(text: str) -> Iterator[Any]:
    """Yield the value of the key ``score`` for each JSON object in a text. Objects without this key are
    skipped. Yield None for text that begins like an object but is not JSON, and for an object with several
    scores.
    """
    decoder = json.JSONDecoder(object_pairs_hook=tuple)  # pairs, since a key may be given twice
    position = text.find("{")
    while position >= 0:
        try:
            value, end = decoder.raw_decode(text, position)
            if named := _named(value, "score"):
                yield _only(named)
        except (ValueError, RecursionError):
            end = position + 1
            if re.match(r"\{\s{0,99}[\"']", text[position : position + 101]):
                yield None
                closing = closing_brace(text, position)
                end = len(text) if closing is None else closing + 1
        position = text.find("{", end)


def _named(value: Any, *keys: str) -> list[Any]:
    """Return all values that are stored under one of ``keys`` in ``value``, nested JSON.

    In ``value`` each JSON object is a tuple of pairs of key and value. If an object has one of the keys, the
    objects inside it are not searched.
    """
    if isinstance(value, tuple):
        own = [inner for key, inner in value if key in keys]
        return own or [found for _, inner in value for found in _named(inner, *keys)]
    if isinstance(value, list):
        return [found for inner in value for found in _named(inner, *keys)]
    return []


def _only(values: list[Any]) -> Any:
    """Return the only value in a list, or None if the list does not have exactly one value.

    If the value is a JSON object (a tuple of pairs of key and value), return the only value that it has under
    ``score`` or ``value``, or None.
    """
    if len(values) != 1:
        return None
    return _only(_named(values[0], "score", "value")) if isinstance(values[0], tuple) else values[0]


def _in_prose(text: str, scale: Scale | None) -> float:
    """Return the score in a text without a JSON object. Only sentences with a score and perhaps a reason for
    it are read, such as "Score: 7" or "8/10". Other sentences are ignored.

    ``scale``: the range of scores, None for 0 to 1. Raises ValueError if no sentence has a score, or if
    sentences have different scores.
    """
    low, high = (scale.min, scale.max) if scale is not None else (0.0, 1.0)
    lines = [line.strip() for line in _MARKDOWN.sub("", normalized(text)).splitlines() if line.strip()]
    values = set()
    for index, line in enumerate(lines):
        sentences = _SENTENCE_END.split(line)
        bare = len(sentences) == 1 and index in (0, len(lines) - 1)
        said = (_said(sentence, low, high, bare=bare) for sentence in sentences)
        values |= {value for value in said if value is not None}
    if not values:
        raise ValueError(f'the judge named no score, such as "Score: 7" in a sentence of its own; {_ASK}')
    if len(values) > 1:
        raise ValueError(f"the judge named several scores; {_ASK}")
    return values.pop()


def _said(sentence: str, low: float, high: float, *, bare: bool) -> float | None:
    """Return the score in a sentence. Return None if the sentence has no number, or a number that may mean
    something else.

    ``low``, ``high``: the range of scores. "8 out of 10" and "8/10" are 8 if ``high`` is 10. ``bare``:
    whether a sentence that is only a number is a score.
    """
    if len(sentence) > _SENTENCE_CHARACTERS:
        return None
    sentence = _RANGE.sub(lambda m: " " if (float(m[1]), float(m[2])) == (low, high) else m[0], sentence)
    sentence = _FULL_MARKS.sub(lambda m: " " if float(m[1] or m[2]) == high else m[0], sentence)
    sentence = _OUT_OF.sub(lambda m: f"score {m[1]} " if float(m[2]) == high else m[0], sentence)
    if explained := _EXPLAINED.fullmatch(sentence):
        sentence = explained[1]
    match = _WITH_ONE_NUMBER.fullmatch(sentence)
    if match is None:
        return None
    around = _I_GIVE.sub("score", f"{match[1]} {match[3]}").casefold()
    words = frozenset(re.findall(r"[^\W\d_]+", around))
    if not words <= _WORDS or not _MARKS.fullmatch(re.sub(r"[^\W\d_]+", "", around)):
        return None
    return float(match[2]) if words & _NAMES or (bare and not words) else None
