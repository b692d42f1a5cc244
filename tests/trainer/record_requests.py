"""ASGI middleware for vLLM's server, which records the requests that the server receives."""

import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

RECORD_FILE = "RFT_TEST_RECORD_FILE"


class RecordRequests:
    """Appends the path and body of every POST to a file, as a JSON line."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._file = Path(os.environ[RECORD_FILE])

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request to the server. Record a POST when its whole body has arrived."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        body = b""

        async def recording() -> Message:
            nonlocal body
            message = await receive()
            if message["type"] == "http.request":
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    entry = {"path": scope["path"], "body": json.loads(body)}
                    if not _is_probe(entry["body"]):
                        with self._file.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(entry) + "\n")
            return message

        await self._app(scope, recording, send)


def _is_probe(body: dict[str, Any]) -> bool:
    """Return whether the trainer's probe sent the request: it names a probe adapter, or asks for log-probs of
    the prompt.
    """
    return str(body.get("model", "")).startswith("probe") or body.get("prompt_logprobs") is not None
