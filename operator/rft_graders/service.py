"""The grader ``http``: calls a user's web service, with version 1 of the protocol in ``docs/graders.md``.

request   {"version": 1, "grader": NAME, "items": [{"id": 0, "messages": […], "completion": "…", "row": {…}}]}
answer    {"scores": [{"id": 0, "score": 0.5}, {"id": 1, "error": "why"}]}  or  {"scores": [0.5, 1]}
"""

from collections.abc import Iterator, Sequence
from typing import Any

from rft_api.graders import Grader
from rft_graders.calls import Call, score
from rft_graders.client import GradeRequest, Outcome
from rft_graders.protocol import encode

MAX_ITEMS = 32
MAX_BODY_BYTES = 8 * 1024 * 1024
_FRAME_BYTES = 256
"""Bytes to allow for the JSON text around the list of items, and again for the punctuation around each item.
With this allowance the whole body stays within ``MAX_BODY_BYTES``.
"""


class Service:
    """Makes the HTTP calls to a user's web service that scores completions, and reads the scores it sends."""

    def __init__(self, grader: Grader) -> None:
        """Take the URL and the name from the settings of a grader of kind ``http``."""
        assert grader.http is not None
        self.url = grader.http.url
        self._name = grader.name

    def calls(self, requests: Sequence[GradeRequest]) -> Iterator[Call]:
        """Yield HTTP calls that ask for the scores of all requests.

        Each call has at most ``MAX_ITEMS`` requests and ``MAX_BODY_BYTES`` bytes. A request that is too large
        gets a call of its own, which has an error instead of a body.
        """
        batch: list[int] = []
        size = _FRAME_BYTES
        for index, request in enumerate(requests):
            length = len(encode(_item(0, request))) + _FRAME_BYTES
            if length + _FRAME_BYTES > MAX_BODY_BYTES:
                yield Call((index,), ValueError(f"row and completion exceed {MAX_BODY_BYTES} bytes together"))
                continue
            if batch and (len(batch) == MAX_ITEMS or size + length > MAX_BODY_BYTES):
                yield self._call(batch, requests)
                batch, size = [], _FRAME_BYTES
            batch.append(index)
            size += length
        if batch:
            yield self._call(batch, requests)

    def outcomes(self, answer: Any, count: int) -> list[Outcome]:
        """Return the score or the error of each of the ``count`` items of a call, in their order.

        ``answer``: the parsed JSON of the service's answer. Raises ValueError if it has no list of scores, or
        a list of plain scores of another length than ``count``.
        """
        scores = answer.get("scores") if isinstance(answer, dict) else None
        if not isinstance(scores, list):
            raise ValueError("the answer is not a JSON object with a list under the key scores")
        if any(isinstance(entry, dict) for entry in scores):
            return _by_id(scores, count)
        if len(scores) != count:
            raise ValueError(
                f"the service sent {len(scores)} scores for {count} items; send one for each, or use ids"
            )
        return [score(entry) for entry in scores]

    def _call(self, batch: list[int], requests: Sequence[GradeRequest]) -> Call:
        items = [_item(number, requests[index]) for number, index in enumerate(batch)]
        return Call(tuple(batch), encode({"version": 1, "grader": self._name, "items": items}))


def _item(number: int, request: GradeRequest) -> dict[str, Any]:
    row = {name: value for name, value in request.row.items() if name != "messages"}
    messages = request.row["messages"]
    return {"id": number, "messages": messages, "completion": request.completion, "row": row}


def _by_id(scores: list[Any], count: int) -> list[Outcome]:
    found: dict[int, list[dict[str, Any]]] = {number: [] for number in range(count)}
    for entry in scores:
        number = entry.get("id") if isinstance(entry, dict) else None
        if type(number) is int and number in found:
            found[number].append(entry)
    return [_outcome(found[number]) for number in range(count)]


def _outcome(entries: list[dict[str, Any]]) -> Outcome:
    if len(entries) != 1:
        return ValueError(f"the service sent {len(entries) or 'no'} scores with the id of this item")
    if entries[0].get("error") is not None:
        return ValueError(str(entries[0]["error"]))
    return score(entries[0].get("score"))
