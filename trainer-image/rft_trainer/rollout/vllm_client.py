"""A client of vLLM's server, which has OpenAI's API. Each completion is one request with its own seed."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from rft_run.errors import Preempted, SamplerError
from rft_trainer.rollout.engine import AdapterVersion, ConnectionLost, Generated, Request, unnoticed

_TOP_K_OFF = 0
_POLL_SECONDS = 0.2
_MAX_CONNECTIONS = 512
_ANSWER_SECONDS = 120.0
"""Default time limit, in seconds, of an answer that is not a completion."""


class VllmClient:
    """A client of one vLLM server on a Unix socket. No connection stays open between calls."""

    def __init__(self, socket: Path, api_key: str) -> None:
        self._socket = socket
        self._headers = {"Authorization": f"Bearer {api_key}"}

    def load_adapter(self, adapter: AdapterVersion) -> None:
        """Load an adapter into the server, from its folder.

        Raises SamplerError if the server refuses the adapter, ConnectionLost if the server does not answer.
        """
        self._adapter_call("load", {"lora_name": adapter.name, "lora_path": str(adapter.path)})

    def unload_adapter(self, name: str) -> None:
        """Unload an adapter from the server.

        Raises SamplerError if the server refuses this, ConnectionLost if the server does not answer.
        """
        self._adapter_call("unload", {"lora_name": name})

    def logprobs(self, model: str, token_ids: Sequence[int], seconds: float = _ANSWER_SECONDS) -> list[float]:
        """Return the log-prob, in nats, of each token of a text except the first.

        ``model``: the name of an adapter, or of the base model. ``seconds``: time limit of the answer. Raises
        SamplerError if the server refuses the request, ConnectionLost if the server fails or does not answer.
        """
        body = {
            "model": model, "prompt": list(token_ids), "prompt_logprobs": 0, "max_tokens": 1, "temperature": 0
        }  # fmt: skip
        answer = self._post("completions", body, seconds)
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise ConnectionLost(f"vLLM answered with HTTP status {answer.status_code}: {answer.text[:500]}")
        if answer.is_error:
            raise SamplerError(f"vLLM refused to compute log-probs of a text: {answer.text[:500]}")
        return prompt_logprobs(answer.json(), token_ids)

    def _post(self, path: str, body: Mapping[str, Any], seconds: float = _ANSWER_SECONDS) -> httpx.Response:
        transport = httpx.HTTPTransport(uds=str(self._socket))
        with httpx.Client(transport=transport, headers=self._headers, timeout=seconds) as client:
            try:
                return client.post(f"http://vllm/v1/{path}", json=body)
            except httpx.TransportError as error:
                raise ConnectionLost(str(error)) from error

    def _adapter_call(self, verb: str, body: dict[str, str]) -> None:
        answer = self._post(f"{verb}_lora_adapter", body)
        if answer.is_error:
            raise SamplerError(f"vLLM did not {verb} adapter {body['lora_name']}: {answer.text[:500]}")

    def complete(
        self,
        model: str,
        requests: dict[int, Request],
        done: dict[int, Generated],
        should_stop: Callable[[], bool],
        alive: Callable[[], bool],
        answered: Callable[[], None] = unnoticed,
    ) -> None:
        """Send the requests to the server, and wait until the server has answered all of them.

        When a completion arrives, it is put into ``done`` under the key of its request. Then ``answered`` is
        called.

        - ``model``: the name of the adapter, or of the base model, for requests that name no adapter.
        - ``alive``: returns whether the server's process still runs.

        Raises:
            ConnectionLost: the server dies. ``done`` then has the completions that were received before.
            Preempted: ``should_stop`` returns True.
            SamplerError: the server refuses a request.
        """
        asyncio.run(self._complete(model, requests, done, should_stop, alive, answered))

    async def _complete(
        self,
        model: str,
        requests: dict[int, Request],
        done: dict[int, Generated],
        should_stop: Callable[[], bool],
        alive: Callable[[], bool],
        answered: Callable[[], None],
    ) -> None:
        transport = httpx.AsyncHTTPTransport(
            uds=str(self._socket), limits=httpx.Limits(max_connections=_MAX_CONNECTIONS)
        )
        async with httpx.AsyncClient(
            transport=transport, headers=self._headers, timeout=httpx.Timeout(None, connect=30)
        ) as client:

            async def one(key: int, request: Request) -> None:
                done[key] = await _completion(client, request.adapter or model, request)
                answered()

            tasks = {asyncio.create_task(one(key, request)) for key, request in requests.items()}
            pending = tasks
            try:
                while pending:
                    finished, pending = await asyncio.wait(
                        pending, timeout=_POLL_SECONDS, return_when=asyncio.FIRST_EXCEPTION
                    )
                    for task in finished:
                        task.result()
                    if should_stop():
                        raise Preempted("asked to stop while sampling")
                    if pending and not alive():
                        raise ConnectionLost("vLLM's process ended")
            finally:
                for task in pending:
                    task.cancel()
                # Retrieve every task's exception. When the server dies many tasks fail, but only one error is
                # raised.
                await asyncio.gather(*tasks, return_exceptions=True)


async def _completion(client: httpx.AsyncClient, model: str, request: Request) -> Generated:
    """Send one request to the server, and return the completion. ``model``: the name of the adapter.

    Raises ConnectionLost if the server fails or does not answer, SamplerError if it refuses the request.
    """
    try:
        answer = await client.post("http://vllm/v1/completions", json=request_body(model, request))
    except httpx.TransportError as error:
        raise ConnectionLost(str(error) or type(error).__name__) from error
    if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise ConnectionLost(f"vLLM answered with HTTP status {answer.status_code}: {answer.text[:500]}")
    if answer.is_error:
        raise SamplerError(f"vLLM refused a request: {answer.text[:500]}")
    return parse_answer(answer.json())


def request_body(model: str, request: Request) -> dict[str, Any]:
    """Return the JSON body of ``POST /v1/completions`` for a request. ``model``: the name of the adapter."""
    parameters = request.parameters.effective()
    body: dict[str, Any] = {
        "model": model,
        "prompt": list(request.prompt_token_ids),
        "n": 1,
        "max_tokens": parameters.max_tokens,
        "temperature": parameters.temperature,
        "seed": request.seed,
        "logprobs": 0,
        "return_token_ids": True,
    }
    if not parameters.greedy:
        body["top_p"] = parameters.top_p
        body["top_k"] = parameters.top_k or _TOP_K_OFF
    if parameters.stop:
        body["stop"] = list(parameters.stop)
    if parameters.stop_token_ids:
        body["stop_token_ids"] = list(parameters.stop_token_ids)
    return body


def prompt_logprobs(answer: dict[str, Any], token_ids: Sequence[int]) -> list[float]:
    """Read the log-prob of each token of a prompt, in nats, from the JSON of vLLM's answer.

    ``token_ids``: the tokens of the prompt. The first token has no log-prob, so it is left out.
    """
    by_place = answer["choices"][0]["prompt_logprobs"][1:]
    return [float(known[str(token)]["logprob"]) for known, token in zip(by_place, token_ids[1:], strict=True)]


def parse_answer(answer: dict[str, Any]) -> Generated:
    """Return the completion in the JSON of vLLM's answer to a request.

    Raises ConnectionLost if the server has aborted the request.
    """
    choice = answer["choices"][0]
    reason = choice["finish_reason"]
    if reason not in ("stop", "length"):
        raise ConnectionLost(f"vLLM aborted a request: {reason}")
    return Generated(
        token_ids=tuple(choice["token_ids"]),
        logprobs=tuple(choice["logprobs"]["token_logprobs"]),
        text=choice["text"],
        finish_reason=reason,
    )
