"""Rows are rendered with a real tokenizer of transformers."""

from typing import Any

import pytest

from rft_trainer.data.rows import Row, prompt_key
from rft_trainer.data.run_rendering import Rendering
from rft_trainer.data.whole import render

TEMPLATE = (
    "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}assistant{% endif %}{% if loud %} loud{% endif %}"
)


def tokenizer_of(template: str) -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = {"user": 0, "hello": 1, "assistant": 2, "loud": 3, "[UNK]": 4, "1999": 5}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=model, chat_template=template)


def test_a_transformers_tokenizer_returns_a_list_of_token_ids() -> None:
    tokenizer = tokenizer_of(TEMPLATE)
    messages = [{"role": "user", "content": "hello"}]
    prompts, dropped = render(
        [Row(1, messages, {}, prompt_key(messages))], tokenizer, {"loud": True}, budget_tokens=8
    )
    assert [prompt.token_ids for prompt in prompts] == [(0, 1, 2, 3)]
    assert dropped == 0


def test_a_transformers_tokenizer_prints_the_date_of_the_run_and_gets_the_tools() -> None:
    template = "{{ strftime_now('%Y') }} {% for tool in tools %}{{ tool.name }} {% endfor %}" + TEMPLATE
    messages = [{"role": "user", "content": "hello"}]
    one = Row(1, messages, {"tools": [{"name": "loud"}]}, prompt_key(messages))
    rendering = Rendering(moment="1999-01-01T00:00:00")
    prompts, _ = render([one], tokenizer_of(template), None, budget_tokens=8, rendering=rendering)
    assert prompts[0].token_ids == (5, 3, 0, 1, 2)
