"""An agent written for OpenAI's client can play a rollout with only another base URL and API key."""

import json
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from rft_trainer.rollout.gateway.session import RolloutLimits
from tests.trainer.cached_packages import installed
from tests.unit.gateway_server_support import Open
from tests.unit.gateway_support import ADD

openai = pytest.importorskip("openai", reason="OpenAI's client comes with vLLM")

SMOLAGENTS = ("smolagents==1.26.0", "python-dotenv==1.2.4")
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


@pytest.mark.parametrize("stream", [False, True])
def test_an_agent_of_a_published_package_runs_unchanged(
    tmp_path: Path, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(installed(*SMOLAGENTS))
    smolagents: Any = pytest.importorskip("smolagents", reason="its own dependencies come with vLLM")

    class Price(smolagents.Tool):  # type: ignore[misc]
        name, description, output_type = "price", "Return the price of an item.", "integer"
        inputs: ClassVar = {"item": {"type": "string", "description": "Name of the item."}}

        def forward(self, item: str) -> int:
            return len(item)

    said = (_called("price", item="egg"), _called("final_answer", answer="3 euros"))
    with Open(tmp_path, *said) as opened:
        one, client = opened.rollout(limits=RolloutLimits(8, 4000, 90_000, 60.0))
        key = client.headers["Authorization"].removeprefix("Bearer ")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(opened.socket))) as http:
            model = smolagents.OpenAIModel(
                "policy", api_base="http://gateway/rollouts/r1/v1", api_key=key,
                client_kwargs={"http_client": http},
            )  # fmt: skip
            player = smolagents.ToolCallingAgent(
                tools=[Price()], model=model, max_steps=4, stream_outputs=stream, verbosity_level=0
            )
            assert player.run("What does an egg cost?") == "3 euros"
    assert one.counts["toolCalls"] == 2
    assert sum(segment.trained for segment in one.segments) == one.sampled_tokens
    last = opened.tokenizer.decode(one.segments[-1].prompt_ids)
    assert "What does an egg cost?" in last
    assert "Observation:\n3" in last


def _called(name: str, **arguments: str) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"
