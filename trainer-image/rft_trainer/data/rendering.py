"""Renders messages into token ids, with the model's chat template."""

from collections.abc import Mapping
from typing import Any, Protocol

from rft_run.errors import ConfigurationError
from rft_run.rows.messages import Message
from rft_trainer.data.rows import Prompt, Row


class Tokenizer(Protocol):
    """The only method of a tokenizer that this module uses."""

    def apply_chat_template(self, conversation: list[Message], **options: Any) -> Any:
        """Return the token ids of a conversation."""


class Renderer:
    """Renders rows, with the job's arguments for the template."""

    def __init__(self, tokenizer: Tokenizer, chat_template_args: Mapping[str, Any] | None) -> None:
        """Raises ConfigurationError when the tokenizer has no chat template."""
        if getattr(tokenizer, "chat_template", "") is None:
            raise ConfigurationError("the model's tokenizer has no chat template")
        self._tokenizer = tokenizer
        ours = {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
        self._options = {**(chat_template_args or {}), **ours}

    def prompt(self, row: Row) -> Prompt:
        """Return the row with its token ids. Raises ValueError, with the line, when the template fails."""
        try:
            ids = self._tokenizer.apply_chat_template(row.messages, **self._options)
        except Exception as error:  # templates are programs by the model's authors and may raise any error
            raise ValueError(f"line {row.line}: the chat template refuses it: {error}") from error
        return Prompt(row, tuple(ids))
