"""An agent written for OpenAI's client can play a rollout with only another base URL and API key."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.gateway_server_support import Open
from tests.unit.gateway_support import ADD

openai = pytest.importorskip("openai", reason="OpenAI's client comes with vLLM")

CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


def agent(client: Any, *, stream: bool) -> str:
    """Run an agent's loop: ask the model and call the tools that it names, until an answer names no tool."""
    messages: list[Any] = [{"role": "user", "content": "1 + 1?"}]
    while True:
        if stream:
            with client.chat.completions.stream(model="policy", messages=messages, tools=[ADD]) as events:
                message = events.get_final_completion().choices[0].message
        else:
            answer = client.chat.completions.create(model="policy", messages=messages, tools=[ADD])
            message = answer.choices[0].message
        messages.append(message.to_dict())
        if not message.tool_calls:
            return str(message.content)
        for call in message.tool_calls:
            result = f"{call.function.name} gave 2"
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


@pytest.mark.parametrize("stream", [False, True])
def test_an_agent_of_openais_client_runs_unchanged(tmp_path: Path, stream: bool) -> None:
    with Open(tmp_path, CALL, "It is 2.") as opened:
        one, client = opened.rollout()
        key = client.headers["Authorization"].removeprefix("Bearer ")
        http = httpx.Client(transport=httpx.HTTPTransport(uds=str(opened.socket)))
        with openai.OpenAI(base_url="http://gateway/rollouts/r1/v1", api_key=key, http_client=http) as own:
            assert agent(own, stream=stream) == "It is 2."
    (segment,) = one.segments
    assert segment.trained == one.sampled_tokens
    assert "add gave 2" in opened.tokenizer.decode(segment.token_ids)
