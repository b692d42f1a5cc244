"""Reads requests and builds answers in the JSON of OpenAI's API, for agents that call the policy."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rft_run.rows.messages import ROLES, Message, calls_of
from rft_trainer.rollout.gateway.session import Recorded

MODEL = "policy"
"""The name of the only model at the endpoint. A request with any other name uses this model too."""

FORCED = (
    *("temperature", "top_p", "top_k", "min_p", "seed", "stop", "max_tokens", "max_completion_tokens"),
    *("frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias"),
)
"""Sampling parameters that the job's spec sets. If a client sends them, they are ignored and counted."""


class BadRequest(ValueError):
    """Error: a client's request cannot be answered.

    ``param``: the field of the request with the wrong value. None: no single field is wrong.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True)
class AnswerOptions:
    """Options in a request for a completion: the form of the answer.

    - ``stream``: whether the answer is sent as a stream of events.
    - ``usage_in_stream``: whether one event of the stream has the token counts.
    - ``logprobs``, ``token_ids``: whether the answer has the log-probs and the token ids.
    - ``ignored``: names of the request's parameters that are ignored, because the job's spec sets them, or
      because tokens are sampled without constraints.
    """

    stream: bool = False
    usage_in_stream: bool = False
    logprobs: bool = False
    token_ids: bool = False
    ignored: tuple[str, ...] = ()


def error_body(message: str, kind: str, param: str | None = None) -> dict[str, Any]:
    """Return the JSON body of an error answer, in the form of OpenAI's API.

    ``kind``: the type and the code of the error. ``param``: the field of the request with the wrong value.
    """
    return {"error": {"message": message, "type": kind, "param": param, "code": kind}}


def asked_of(body: Mapping[str, Any]) -> AnswerOptions:
    """Read the options in the JSON ``body`` of a request for a completion.

    Raises BadRequest for an option that is not supported.
    """
    if body.get("n") not in (None, 1):
        raise BadRequest(f"n is {body['n']!r}; a turn has one completion, so leave n out", "n")
    if _object(body, "response_format").get("type") not in (None, "text"):
        raise BadRequest(
            "response_format cannot be forced, since tokens are sampled without constraints",
            "response_format",
        )
    options = _object(body, "stream_options")
    # No call can be forced, because tokens are sampled without constraints. Published agents ask for it.
    forces_call = body.get("tool_choice") not in (None, "auto", "none")
    return AnswerOptions(
        stream=bool(body.get("stream")),
        usage_in_stream=bool(options.get("include_usage")),
        logprobs=body.get("logprobs") not in (None, False),
        token_ids=bool(body.get("return_token_ids")),
        ignored=(
            *(name for name in FORCED if body.get(name) is not None),
            *(["tool_choice"] if forces_call else []),
        ),
    )


def _object(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the object in the field ``name`` of a request, or {} if it is absent. Raises BadRequest."""
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise BadRequest(f"{name} is not an object", name)
    return value or {}


def messages_of(body: Mapping[str, Any]) -> list[Message]:
    """Read the messages in the JSON ``body`` of a chat request. Each message's content becomes one text.

    Raises BadRequest if there is no message, or if a message has an unknown role, a malformed tool call, or
    content that is not text.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages is not a list of at least one message", "messages")
    found = []
    for number, message in enumerate(messages, start=1):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ROLES:
            raise BadRequest(f"message {number}: its role is not one of {', '.join(ROLES)}", "messages")
        try:
            calls_of(number, message)
        except ValueError as error:
            raise BadRequest(str(error), "messages") from error
        kept = {key: value for key, value in message.items() if value is not None}
        found.append({**kept, "content": _text(number, message.get("content"))})
    return found


def _text(number: int, content: object) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(
        isinstance(p, dict) and isinstance(p.get("text"), str) for p in content
    ):
        return "".join(part["text"] for part in content)
    raise BadRequest(f"message {number}: its content is not text, and only text is supported", "messages")


def tools_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tools in the JSON ``body`` of a chat request. [] if its ``tool_choice`` is "none".

    Raises BadRequest if ``tools`` is not a list of objects.
    """
    tools = [] if body.get("tool_choice") == "none" else body.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise BadRequest("tools is not a list of objects", "tools")
    return tools


def prompt_of(body: Mapping[str, Any]) -> str | list[int]:
    """Read the prompt in the JSON ``body`` of a completion request: a text, or a list of token ids.

    Raises BadRequest if the prompt is missing, empty, or anything else, such as a list of prompts.
    """
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and all(type(token) is int and token >= 0 for token in prompt):
        return prompt
    if isinstance(prompt, str) and prompt:
        return prompt
    raise BadRequest(
        "prompt is neither a text nor a list of token ids; several prompts are not supported", "prompt"
    )


@dataclass(frozen=True)
class ReportedReward:
    """The report of an agent at the end of its rollout: a reward, or the error that ended its work.

    ``metrics``: further numbers of the agent, by name. ``error``: a message. None: there was no error.
    """

    value: float | None
    metrics: dict[str, float] = field(default_factory=dict)
    error: str | None = None


def reward_of(body: Mapping[str, Any]) -> ReportedReward:
    """Read an agent's report of a reward or an error in the JSON ``body`` of a request.

    Raises BadRequest if a field has a wrong value, or if both the reward and the error are missing.
    """
    value, error, metrics = body.get("value"), body.get("error"), body.get("metrics") or {}
    if error is not None and not isinstance(error, str):
        raise BadRequest("error is not a text", "error")
    if not isinstance(metrics, dict) or not all(_finite(number) for number in metrics.values()):
        raise BadRequest("metrics is not an object of finite numbers", "metrics")
    if value is not None and not _finite(value):
        raise BadRequest(f"value is {value!r:.60}, not a finite number", "value")
    if value is None and error is None:
        raise BadRequest("value is missing; send a number, or an error", "value")
    numbers = {str(name): float(number) for name, number in metrics.items()}
    return ReportedReward(None if value is None else float(value), numbers, error)


def _finite(value: object) -> bool:
    return isinstance(value, bool | int | float) and abs(value) < 1e300 and math.isfinite(value)


def usage(turn: Recorded) -> dict[str, int]:
    """Return the token counts of a turn's prompt and completion, in the form of OpenAI's API."""
    prompt, completion = len(turn.prompt_ids), len(turn.generated.token_ids)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _finish_reason(turn: Recorded, message: Message) -> str:
    calls = bool(message.get("tool_calls")) and not turn.generated.truncated
    return "tool_calls" if calls else turn.generated.finish_reason


def _extras(turn: Recorded, asked: AnswerOptions, decode: Callable[[list[int]], str]) -> dict[str, Any]:
    """Return the optional fields of an answer: log-probs in nats and token ids, if the client asked for them.

    ``decode``: returns the text of token ids.
    """
    found: dict[str, Any] = {}
    if asked.logprobs:
        pairs = zip(turn.generated.token_ids, turn.generated.logprobs, strict=True)
        content = [
            {
                "token": (text := decode([token])),
                "logprob": value,
                "bytes": list(text.encode()),
                "top_logprobs": [],
            }
            for token, value in pairs
        ]
        found["logprobs"] = {"content": content, "refusal": None}
    if asked.token_ids:
        found["token_ids"] = list(turn.generated.token_ids)
    return found


def _head(name: str, kind: str, turn: Recorded, created: int) -> dict[str, Any]:
    return {
        "id": name,
        "object": kind,
        "created": created,
        "model": MODEL,
        "policy_version": turn.adapter_version,
    }


def chat_answer(
    name: str,
    created: int,
    turn: Recorded,
    message: Message,
    asked: AnswerOptions,
    decode: Callable[[list[int]], str],
) -> dict[str, Any]:
    """Return the JSON of the answer to a chat request.

    - ``name``: the id of the answer.
    - ``created``: the time of the answer, in seconds since 1970.
    - ``turn``, ``message``: the sampled turn, as tokens and as the assistant's message.
    - ``asked``: the options in the request.
    - ``decode``: returns the text of token ids.
    """
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": _finish_reason(turn, message),
        "logprobs": None,
        **_extras(turn, asked, decode),
    }
    prompt = {"prompt_token_ids": list(turn.prompt_ids)} if asked.token_ids else {}
    head = _head(name, "chat.completion", turn, created)
    return {**head, "choices": [choice], "usage": usage(turn), **prompt}


def chat_chunks(
    name: str,
    created: int,
    turn: Recorded,
    message: Message,
    asked: AnswerOptions,
    decode: Callable[[list[int]], str],
) -> Iterator[bytes]:
    """Yield the server-sent events of a streamed answer to a chat request, as bytes.

    The whole turn is sampled before the first event. The parameters are those of ``chat_answer``: ``name`` is
    the id of the answer, and ``created`` its time in seconds since 1970.
    """
    head = _head(name, "chat.completion.chunk", turn, created)

    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        return f"data: {json.dumps({**head, 'choices': choices, **more})}\n\n".encode()

    def delta(content: dict[str, Any], reason: str | None = None, **more: Any) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": content, "finish_reason": reason, "logprobs": None, **more}]

    yield event(delta({"role": "assistant", "content": ""}))
    said = {key: message[key] for key in ("reasoning_content", "content") if message.get(key)}
    extras = _extras(turn, asked, decode)
    if said or extras:
        yield event(delta(said, **extras))
    for number, call in enumerate(message.get("tool_calls", ())):
        yield event(delta({"tool_calls": [{"index": number, **call}]}))
    yield event(delta({}, _finish_reason(turn, message)))
    if asked.usage_in_stream:
        yield event([], usage=usage(turn))
    yield b"data: [DONE]\n\n"


def completion_answer(
    name: str, created: int, turn: Recorded, asked: AnswerOptions, decode: Callable[[list[int]], str]
) -> dict[str, Any]:
    """Return the JSON of the answer to a completion request, with the text of the sampled ``turn``.

    - ``name``: the id of the answer.
    - ``created``: the time of the answer, in seconds since 1970.
    - ``decode``: returns the text of token ids.
    """
    tokens = [decode([token]) for token in turn.generated.token_ids]
    logprobs = {"tokens": tokens, "token_logprobs": list(turn.generated.logprobs)} if asked.logprobs else None
    choice: dict[str, Any] = {
        "index": 0,
        "text": turn.generated.text,
        "finish_reason": turn.generated.finish_reason,
        "logprobs": logprobs,
    }
    if asked.token_ids:
        choice |= {"token_ids": list(turn.generated.token_ids), "prompt_token_ids": list(turn.prompt_ids)}
    return {**_head(name, "text_completion", turn, created), "choices": [choice], "usage": usage(turn)}


def completion_chunks(
    name: str, created: int, turn: Recorded, asked: AnswerOptions, decode: Callable[[list[int]], str]
) -> Iterator[bytes]:
    """Yield the server-sent events of a streamed answer to a completion request, as bytes.

    The first event has the whole text. The parameters are those of ``completion_answer``.
    """
    yield f"data: {json.dumps(completion_answer(name, created, turn, asked, decode))}\n\n".encode()
    yield b"data: [DONE]\n\n"


def models_answer() -> dict[str, Any]:
    """Return the JSON of the list of models in the form of OpenAI's API. The list has one model."""
    return {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "rft"}]}
