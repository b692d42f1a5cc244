"""The grader ``model``: asks a judge model to score completions, by OpenAI's chat API. Each completion is one
request.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from rft_api.graders import Grader
from rft_graders.calls import Call, score
from rft_graders.client import GradeRequest, Outcome
from rft_graders.protocol import encode
from rft_graders.reply import parse_label, parse_score
from rft_graders.service import MAX_BODY_BYTES
from rft_graders.template import filled, parts

_PATH = "/chat/completions"


class Judge:
    """Makes the HTTP calls that ask a judge model for scores, and reads the scores in its answers."""

    def __init__(self, grader: Grader) -> None:
        """Read URL, prompt template and scale from the settings of a grader of kind ``model``.

        Raises TemplateProblem if the prompt template is not valid.
        """
        assert grader.model is not None
        parts(grader.model.prompt)
        base = grader.model.url.rstrip("/")
        self.url = base if base.endswith(_PATH) else base + _PATH
        self._settings = grader.model
        self._scale = grader.scale

    def calls(self, requests: Sequence[GradeRequest]) -> Iterator[Call]:
        """Yield one HTTP call to the judge model for each completion to score.

        If the prompt cannot be made or is too large, the call has an error instead of a body.
        """
        for index, request in enumerate(requests):
            try:
                yield Call((index,), self._body(request))
            except ValueError as error:
                yield Call((index,), error)

    def outcomes(self, reply: Any, count: int) -> list[Outcome]:
        """Return a list with one score, which is read from the judge's answer.

        ``reply``: the parsed JSON of the response to a call. ``count`` is not used, because each call has one
        completion. Raises ValueError if the answer has no clear score or label.
        """
        del count  # always one
        if self._settings.labels:
            return [score(self._settings.labels[parse_label(_text(reply), list(self._settings.labels))])]
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


def _is_cut(reply: Any) -> bool:
    """Return whether the judge's answer was truncated at the maximum number of tokens.

    ``reply``: the parsed JSON of the response.
    """
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
        raise ValueError("choices[0].message.content in the answer of the judge is not a text")
    return text
