"""The trainer's client of a grader process: a request that cannot be sent gets an error."""

import socket
from typing import Any

import pytest

from rft_graders.client import GraderClient, GradeRequest, Inbox


def nested(depth: int) -> list[Any]:
    """Return lists that are nested ``depth`` levels deep."""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("value", "said"), [({1, 2}, "set is not JSON serializable"), (nested(100_000), "recursion")]
)
def test_an_action_that_is_not_json_gets_an_error_and_the_next_one_is_sent(value: Any, said: str) -> None:
    ours, theirs = socket.socketpair()
    inbox, client = Inbox(), GraderClient(ours, 10)
    refused = inbox.put(GradeRequest("environment/0", "", {"arguments": value}))
    too_large = inbox.put(GradeRequest("environment/0", "", {"arguments": "x" * 2**23}))
    inbox.close()
    with theirs:
        client.converse(inbox, lambda: False)
    assert said in str(refused.result(0).outcome)
    assert "larger than" in str(too_large.result(0).outcome)
    client.close()
    inbox.release()
