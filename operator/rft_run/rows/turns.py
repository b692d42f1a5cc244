"""The texts that an environment adds to a conversation, in the trainer and in ``rft env check``."""

import json

from rft_run.rows.messages import Message


def add_first_text(messages: list[Message], text: str) -> None:
    """Add the text that an environment's ``reset`` returned to the last message of a conversation.

    TRL does the same. If the last message is not the user's, the text becomes a new message of the user.
    """
    if messages and messages[-1]["role"] == "user":
        messages[-1] = {**messages[-1], "content": messages[-1]["content"] + text}
    else:
        messages.append({"role": "user", "content": text})


def failure(text: str) -> str:
    """Return the result of a tool call that failed, as the model sees it: a JSON object with the error."""
    return json.dumps({"error": text}, ensure_ascii=False)
