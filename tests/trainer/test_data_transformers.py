"""Rendering works with a real tokenizer of the transformers library."""

import pytest

from rft_trainer.data.rows import Row, prompt_key
from rft_trainer.data.whole import render

TEMPLATE = (
    "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}assistant{% endif %}{% if loud %} loud{% endif %}"
)


def test_a_transformers_tokenizer_returns_a_list_of_token_ids() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = {"user": 0, "hello": 1, "assistant": 2, "loud": 3, "[UNK]": 4}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, chat_template=TEMPLATE)
    messages = [{"role": "user", "content": "hello"}]
    prompts, dropped = render(
        [Row(1, messages, {}, prompt_key(messages))], tokenizer, {"loud": True}, budget_tokens=8
    )
    assert [prompt.token_ids for prompt in prompts] == [(0, 1, 2, 3)]
    assert dropped == 0
