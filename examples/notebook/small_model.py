"""Writes a random model of two layers whose tokens are characters. It trains in seconds."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

_CHARACTERS = ["<end>", "?", *"0123456789+ab"]


def write_small_model(folder: Path) -> None:
    """Write the model and its tokenizer into ``folder``. It is the same model each time."""
    ids = {character: index for index, character in enumerate(_CHARACTERS)}
    raw = Tokenizer(models.WordLevel(ids, unk_token="?"))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", unk_token="?")
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(ids),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        eos_token_id=ids["<end>"],
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
