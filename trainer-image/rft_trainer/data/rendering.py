"""Renders the rows of a dataset into prompts (token ids), with the model's chat template."""

import logging
from collections.abc import Mapping
from typing import Any

from rft_run.errors import ConfigurationError
from rft_run.rows.messages import Message, tools_of
from rft_run.rows.tool_calls import ToolStyle, as_text
from rft_trainer.data.rows import Prompt, Row
from rft_trainer.data.run_rendering import CURRENT, Rendering
from rft_trainer.data.template import ChatTemplate, MessageForm, Structure, Tokenizer, structure_of

log = logging.getLogger(__name__)

__all__ = ["Renderer", "Tokenizer"]


class Renderer:
    """Renders rows into prompts, with the tokenizer's chat template and the job's ``chatTemplateArgs``."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        chat_template_args: Mapping[str, Any] | None,
        rendering: Rendering = CURRENT,
        tool_style: ToolStyle = "template",
    ) -> None:
        """Prepare the rendering. Raises ConfigurationError if the tokenizer has no chat template.

        - ``rendering``: the date for the chat template, and whether messages are passed unchanged.
        - ``tool_style``: ``template`` if the chat template shows tools and tool calls to the model, ``text``
          if they become text in the messages. Only jobs with an environment can have ``text``.
        """
        source = getattr(tokenizer, "chat_template", "")
        if source is None:
            raise ConfigurationError(
                "spec.model: the model's tokenizer has no chat template; use a model whose tokenizer has one"
            )
        arguments: dict[str, Any] = {**(chat_template_args or {}), "add_generation_prompt": True}
        if "strftime_now" in str(source):
            arguments["strftime_now"] = rendering.date
            if rendering.moment is not None:
                said = "the chat template prints the current date: all prompts of this run get %s"
                log.info(said, rendering.moment)
        self._template = ChatTemplate(tokenizer, arguments)
        self._as_before = rendering.as_before
        self._tool_style = tool_style
        self._forms: dict[Structure, MessageForm] = {}
        self._said: set[str] = set()

    def prompt(self, row: Row) -> Prompt:
        """Return the prompt of a row: the row and the token ids of its messages.

        Raises ValueError if the template fails or drops a message. The error contains the line number.
        """
        try:
            if self._as_before:
                return self._prompt(row, row.messages, None)
            messages, tools = row.messages, tools_of(row.fields)
            if self._tool_style == "text":
                messages = as_text(messages, tools or (), system=self._template.has_system)
                tools = None
            form = self._form(row, messages, tools)
            return self._prompt(row, form.applied(messages), tools)
        except ValueError as error:
            raise ValueError(f"line {row.line}: {error}") from error

    def _prompt(self, row: Row, messages: list[Message], tools: list[dict[str, Any]] | None) -> Prompt:
        ids = self._template.ids(messages, tools)
        return Prompt(row, ids, self._template.opens_thought(ids))

    def _form(self, row: Row, messages: list[Message], tools: list[dict[str, Any]] | None) -> MessageForm:
        """Return how the messages of a row must be changed, so that the chat template drops nothing of them.

        The result is computed once for each structure of messages, and then reused. If the template still
        drops parts of messages, a warning is logged. Raises ValueError if the template refuses the messages,
        or if it drops a whole message after every possible change.
        """
        structure = structure_of(messages, tools)
        form = self._forms.get(structure)
        if form is None:
            form = self._forms[structure] = self._template.form(messages, tools)
            for note in form.notes:
                if note not in self._said:
                    self._said.add(note)
                    log.warning("line %d: %s", row.line, note)
        if form.lost:
            raise ValueError(form.lost)
        return form
