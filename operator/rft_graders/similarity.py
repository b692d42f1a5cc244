"""Similarity of two texts by their words: BLEU, Google BLEU and ROUGE.

- BLEU compares n-grams of one to four words, as defined for one sentence (Papineni et al. 2002). If the texts
  have no n-gram of some length in common, BLEU uses the exponential smoothing of sacrebleu. If they have no
  word in common, BLEU is 0.
- Google BLEU is the precision or the recall of these n-grams, whichever is smaller (Wu et al. 2016).
- ROUGE is the F1 of common n-grams, or of the longest common subsequence (Lin 2004).
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

_LONGEST_RUN = 4
_MOST_WORDS = 2000
"""Maximum words of each text for ROUGE-L, whose time grows with the product of both lengths."""

Words = Sequence[str]


def bleu(reference: str, text: str) -> float:
    """Return the sentence BLEU of ``text`` against ``reference``, from 0 to 1. Case matters.

    Punctuation marks count as words.
    """
    expected, found = _tokens(reference), _tokens(text)
    if not expected or not found:
        return 0.0
    logs, smoothing = 0.0, 1.0
    lengths = range(1, min(_LONGEST_RUN, len(found)) + 1)
    for length in lengths:
        common, total = _common(expected, found, length), len(found) - length + 1
        if common == 0:
            if length == 1:
                return 0.0
            smoothing *= 2
            logs += math.log(1 / (smoothing * total))
        else:
            logs += math.log(common / total)
    brevity = min(0.0, 1 - len(expected) / len(found))
    return math.exp(logs / len(lengths) + brevity)


def gleu(reference: str, text: str) -> float:
    """Return the Google BLEU of ``text`` against ``reference``, from 0 to 1. Case matters.

    It is the precision or the recall of the common n-grams of 1 to 4 words, whichever is smaller.
    """
    expected, found = _tokens(reference), _tokens(text)
    lengths = range(1, _LONGEST_RUN + 1)
    common = sum(_common(expected, found, length) for length in lengths)
    totals = [sum(max(len(words) - n + 1, 0) for n in lengths) for words in (expected, found)]
    return common / max(totals) if max(totals) else 0.0


def rouge(reference: str, text: str, length: int) -> float:
    """Return ROUGE-N of the two texts, from 0 to 1: the F1 of their common n-grams of ``length`` words.

    Case does not matter.
    """
    expected, found = _plain_words(reference), _plain_words(text)
    return _f1(
        _common(expected, found, length), max(len(expected) - length + 1, 0), max(len(found) - length + 1, 0)
    )


def rouge_longest(reference: str, text: str) -> float:
    """Return ROUGE-L of the two texts, from 0 to 1: the F1 of their longest common subsequence of words.

    Case does not matter. Only the first 2,000 words of each text are compared.
    """
    expected, found = _plain_words(reference)[:_MOST_WORDS], _plain_words(text)[:_MOST_WORDS]
    return _f1(_longest_subsequence(expected, found), len(expected), len(found))


def _tokens(text: str) -> Words:
    """Split a text into words, numbers and single punctuation marks."""
    return re.findall(r"\w+|[^\w\s]", text)


def _plain_words(text: str) -> Words:
    return re.findall(r"\w+", text.lower())


def _runs(words: Words, length: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + length]) for i in range(len(words) - length + 1))


def _common(first: Words, second: Words, length: int) -> int:
    return (_runs(first, length) & _runs(second, length)).total()


def _f1(common: int, first: int, second: int) -> float:
    return 2 * common / (first + second) if first and second else 0.0


def _longest_subsequence(first: Words, second: Words) -> int:
    before = [0] * (len(second) + 1)
    for word in first:
        row = [0]
        for column, other in enumerate(second):
            row.append(before[column] + 1 if word == other else max(before[column + 1], row[column]))
        before = row
    return before[-1]
