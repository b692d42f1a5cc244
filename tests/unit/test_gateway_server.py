"""The HTTP endpoint for rollouts: OpenAI's API, an access token per rollout, parameters from the spec."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from rft_run.errors import Preempted, SamplerError
from rft_trainer.rollout.engine import Generated
from rft_trainer.rollout.gateway import answers
from rft_trainer.rollout.gateway.sampler import BatchSampler
from rft_trainer.rollout.gateway.session import RolloutLimits
from tests.unit.gateway_server_support import Open
from tests.unit.gateway_support import ADD, END, PARAMETERS, VOCABULARY, Characters, session

USER = {"role": "user", "content": "1+1?"}
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    with Open(tmp_path, "two", "yes", "more") as one:
        yield one


def test_a_conversation_is_recorded_turn_by_turn(opened: Open) -> None:
    one, client = opened.rollout()
    body = {"model": "any", "messages": [USER], "logprobs": True, "return_token_ids": True}
    answer = client.post("/v1/chat/completions", json=body).json()
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "two"}
    assert choice["finish_reason"] == "stop"
    assert tuple(choice["token_ids"]) == one.turns[0].generated.token_ids
    assert tuple(answer["prompt_token_ids"]) == one.turns[0].prompt_ids
    assert [entry["logprob"] for entry in choice["logprobs"]["content"]] == [-0.5] * 4
    assert answer["usage"]["completion_tokens"] == 4
    again = client.post("/v1/chat/completions", json={"messages": [USER, choice["message"], USER]}).json()
    assert again["choices"][0]["message"]["content"] == "yes"
    assert len(one.segments) == 1
    assert client.get("/v1/models").json()["data"][0]["id"] == "policy"


def test_parameters_of_a_client_are_ignored_and_counted(opened: Open) -> None:
    one, client = opened.rollout()
    client.post(
        "/v1/chat/completions", json={"messages": [USER], "temperature": 0, "max_tokens": 1, "seed": 1}
    )
    (request,) = opened.script.requests
    assert request.parameters == PARAMETERS
    assert request.seed == 7
    assert one.counts["ignoredParameters"] == 3


def test_a_streamed_answer_has_the_same_message_in_events(tmp_path: Path) -> None:
    with Open(tmp_path, CALL) as opened:
        one, client = opened.rollout()
        body = {"messages": [USER], "tools": [ADD], "stream": True, "stream_options": {"include_usage": True}}
        answer = client.post("/v1/chat/completions", json=body)
        assert answer.headers["content-type"] == "text/event-stream"
        *events, end = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
        assert end == "[DONE]"
        chunks = [json.loads(event) for event in events]
        deltas = [choice for chunk in chunks for choice in chunk["choices"]]
        (called,) = [one["delta"]["tool_calls"] for one in deltas if "tool_calls" in one["delta"]]
        assert called[0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
        assert deltas[-1]["finish_reason"] == "tool_calls"
        assert chunks[-1]["usage"]["completion_tokens"] == len(one.turns[0].generated.token_ids)


def test_completions_take_text_and_tokens(opened: Open) -> None:
    _, client = opened.rollout()
    first = client.post("/v1/completions", json={"prompt": "a", "return_token_ids": True}).json()
    assert first["choices"][0]["text"] == "two"
    ids = [*opened.tokenizer.encode("atwo"), END]
    second = client.post("/v1/completions", json={"prompt": ids, "stream": True}).text
    assert '"yes"' in second


def test_a_token_id_outside_the_vocabulary_is_refused_and_the_run_goes_on(opened: Open) -> None:
    one, client = opened.rollout()
    for unknown in (VOCABULARY, 10**30):
        refused = client.post("/v1/completions", json={"prompt": [5, unknown]})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "prompt")
        assert f"0 to {VOCABULARY - 1}" in refused.json()["error"]["message"]
    assert one.turns == []
    assert client.post("/v1/completions", json={"prompt": [VOCABULARY - 1]}).status_code == 200


def test_a_rollout_is_reached_only_with_its_own_token(opened: Open) -> None:
    opened.rollout("r1")
    token = opened.gateway.open_rollout("r2", session(opened.tokenizer))
    refused = [
        opened.client("r1", token).post("/v1/chat/completions", json={"messages": [USER]}),
        opened.client("r3", token).get("/v1/models"),
        opened.client("r1", "none").post("/reward", json={"value": 1}),
    ]
    assert {answer.status_code for answer in refused} == {401}
    assert len({answer.text for answer in refused}) == 1
    assert opened.gateway.counts["unauthorized"] == 3
    assert opened.script.requests == []
    opened.gateway.close_rollout("r2")
    assert opened.client("r2", token).get("/v1/models").status_code == 401


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/chat/completions", {"messages": [USER]}), ("/v1/completions", {"prompt": "a"})],
)
def test_a_request_that_waits_for_its_turn_does_not_change_a_closed_rollout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    read, sampling, go_on = threading.Semaphore(0), threading.Event(), threading.Event()

    def asked_of(found: Any) -> answers.AnswerOptions:
        read.release()
        return real(found)

    def pause() -> None:
        sampling.set()
        assert go_on.wait(10)

    real = answers.asked_of
    monkeypatch.setattr(answers, "asked_of", asked_of)
    limits = RolloutLimits(1, 1000, 4000, 60)
    with Open(tmp_path, "one", "two", before=pause) as opened, ThreadPoolExecutor(2) as threads:
        one, client = opened.rollout(limits=limits)
        first = threads.submit(client.post, path, json=body)
        assert sampling.wait(10)
        second = threads.submit(client.post, path, json=body)
        assert read.acquire(timeout=10)
        assert read.acquire(timeout=10)
        opened.gateway.close_rollout("r1")
        go_on.set()
        assert [answer.result(10).status_code for answer in (first, second)] == [401, 401]
        assert len(opened.script.requests) == 1
        assert (one.turns, one.limit) == ([], None)


def test_a_reward_that_arrives_after_the_rollout_was_closed_is_refused(opened: Open) -> None:
    _, client = opened.rollout()
    other = opened.client("r1", client.headers["Authorization"].removeprefix("Bearer "))
    closed = []

    def body() -> Iterator[bytes]:
        yield b'{"value": '
        assert other.get("/v1/models").status_code == 200  # now the server waits for the rest of the body
        closed.append(opened.gateway.close_rollout("r1"))
        yield b"1}"

    assert client.post("/reward", content=body()).status_code == 401
    assert closed[0].reward is None
    assert opened.gateway.counts["unauthorized"] == 0, "the token was checked before the rollout was closed"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x"}], "n": 2}, "n"),
        ({"messages": [{"role": "user", "content": "x"}], "tools": "add"}, "tools"),
        ({"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_object"}},
         "response_format"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_answered_is_refused(opened: Open, body: dict[str, Any], param: str) -> None:
    one, client = opened.rollout()
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert one.turns == []


def test_a_body_that_is_no_json_object_is_refused(opened: Open) -> None:
    _, client = opened.rollout()
    for body in (b"{", b"[]", b"[" * 100_000):
        assert client.post("/v1/completions", content=body).status_code == 400
    assert opened.gateway.counts["badRequests"] == 3


def test_a_malformed_call_and_a_limit_are_errors_of_the_api(tmp_path: Path) -> None:
    with Open(tmp_path, "<tool_call>{") as opened:
        one, client = opened.rollout(limits=RolloutLimits(1, 1000, 4000, 60))
        body = {"messages": [USER], "tools": [ADD]}
        malformed = client.post("/v1/chat/completions", json=body)
        assert (malformed.status_code, malformed.json()["error"]["type"]) == (422, "malformed_tool_call")
        assert one.counts["malformedCalls"] == 1
        ended = client.post("/v1/chat/completions", json=body)
        assert (ended.status_code, ended.json()["error"]["type"]) == (403, "rollout_ended")
        assert ended.json()["error"]["message"].startswith("maxTurns")


def test_the_first_error_of_the_engine_is_kept(tmp_path: Path) -> None:
    errors = iter([SamplerError("gone"), Preempted("asked to stop")])

    def fail() -> None:
        raise next(errors)

    with Open(tmp_path, before=fail) as opened:
        _, client = opened.rollout()
        for _ in range(2):
            answer = client.post("/v1/completions", json={"prompt": "a"})
            assert (answer.status_code, answer.headers["x-should-retry"]) == (503, "false")
        assert str(opened.gateway.failure) == "gone"


def test_a_reward_is_one_finite_number(opened: Open) -> None:
    _, client = opened.rollout()
    for body in (b'{"value": NaN}', b'{"value": "1"}', b"{}", b'{"value": 1, "metrics": {"a": Infinity}}'):
        assert client.post("/reward", content=body).status_code == 400
    assert client.post("/reward", json={"value": 0.5, "metrics": {"steps": 3}}).status_code == 200
    assert client.post("/reward", json={"value": 1}).status_code == 409
    reported = opened.gateway.close_rollout("r1").reward
    assert reported is not None
    assert (reported.value, reported.metrics) == (0.5, {"steps": 3.0})


def test_an_agent_may_report_an_error_in_place_of_a_reward(opened: Open) -> None:
    _, client = opened.rollout()
    client.post("/reward", json={"error": "the site was down"})
    reported = opened.gateway.close_rollout("r1").reward
    assert reported is not None
    assert (reported.value, reported.error) == (None, "the site was down")


def test_requests_that_wait_are_sampled_as_one_batch() -> None:
    tokenizer = Characters()
    sizes: list[int] = []
    first, go_on = threading.Event(), threading.Event()

    def generate(requests: Any) -> list[Generated]:
        sizes.append(len(requests))
        first.set()
        assert go_on.wait(10)
        return [Generated((), (), "", "stop") for _ in requests]

    sampler = BatchSampler(generate)
    request = session(tokenizer).chat([USER], ()).request
    futures = [sampler.submit(request)]
    assert first.wait(10)
    futures += [sampler.submit(request) for _ in range(5)]
    go_on.set()
    assert all(future.result(10).text == "" for future in futures)
    sampler.close()
    assert sizes == [1, 5]


def test_several_batches_are_sampled_at_once_where_the_engine_can() -> None:
    together = threading.Barrier(3, timeout=10)

    def generate(requests: Any) -> list[Generated]:
        together.wait()
        return [Generated((), (), "", "stop") for _ in requests]

    sampler = BatchSampler(generate, batches=3)
    request = session(Characters()).chat([USER], ()).request
    futures = []
    for _ in range(3):
        futures.append(sampler.submit(request))
        while not futures[-1].running() and not futures[-1].done():
            threading.Event().wait(0.001)
    assert all(future.result(10).text == "" for future in futures)
    sampler.close()


def test_a_sampler_that_fails_fails_the_requests_and_goes_on() -> None:
    outcomes: list[Any] = [RuntimeError("gone"), [Generated((), (), "", "stop")]]

    def generate(requests: Any) -> list[Generated]:
        found = outcomes.pop(0)
        if isinstance(found, Exception):
            raise found
        return list(found)

    sampler = BatchSampler(generate)
    request = session(Characters()).chat([USER], ()).request
    with pytest.raises(RuntimeError, match="gone"):
        sampler.submit(request).result(10)
    assert sampler.submit(request).result(10).finish_reason == "stop"
    sampler.close()


PAST_CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
CHAT: dict[str, Any] = {
    "messages": [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [PAST_CALL]},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "1"}]},
    ],
    "tools": [TOOL],
    "tool_choice": "auto",
    "stream_options": {"include_usage": True},
    "response_format": {"type": "text"},
    "n": 1,
    "stream": False,
}
ODD: list[Any] = [None, True, -1, 10**30, 1e400, "x", [], ["x"], {}, {"a": 1}, [None]]


def replaced(body: Any, odd: Any) -> Iterator[Any]:
    """Yield copies of a JSON value. In each copy, one value at any depth is replaced by ``odd``."""
    for key, value in body.items() if isinstance(body, dict) else enumerate(body):
        copy = deepcopy(body)
        copy[key] = odd
        yield copy
        if isinstance(value, dict | list):
            for inner in replaced(value, odd):
                copy = deepcopy(body)
                copy[key] = inner
                yield copy


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:20])
def test_any_value_in_a_request_is_answered_as_json_and_never_ends_the_run(tmp_path: Path, odd: Any) -> None:
    bodies = [("/v1/chat/completions", body) for body in replaced(CHAT, odd)]
    bodies += [("/v1/completions", body) for body in replaced({"prompt": "a", "logprobs": 1}, odd)]
    bodies += [("/reward", body) for body in replaced({"value": 1, "metrics": {"a": 1}, "error": None}, odd)]
    with Open(tmp_path, *["answer"] * len(bodies)) as opened:
        for i, (path, body) in enumerate(bodies):
            _, client = opened.rollout(f"r{i}")
            answer = client.post(path, content=json.dumps(body))
            assert answer.status_code in (200, 400, 409, 422), (path, body, answer.text)
            assert answer.text.startswith(("{", "data: ")), (path, body, answer.text)
            client.close()
        assert opened.gateway.failure is None


def test_a_token_that_is_no_text_is_refused_as_any_other(opened: Open) -> None:
    _, client = opened.rollout()
    answer = client.get("/v1/models", headers=[(b"Authorization", b"Bearer \xff\xfe")])
    assert answer.status_code == 401
    assert opened.gateway.counts["unauthorized"] == 1
