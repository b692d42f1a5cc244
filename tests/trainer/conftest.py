"""Fixtures for tests of the trainer. The model is so small that tests on two cores are fast."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rft_trainer.runtime.device import set_deterministic
from tests.trainer.s3_support import Keys, client, serving_s3, variables

CONTEXT_LENGTH = 4096


@pytest.fixture(autouse=True)
def torch_as_before() -> Iterator[None]:
    """Restore torch's settings after a test. A run changes these settings for the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    set_deterministic(False, "cpu")


@pytest.fixture(scope="session")
def character_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a two-layer model with random weights. Its tokens are characters.

    About one of 14 sampled tokens is the end token.
    """
    folder = tmp_path_factory.mktemp("model")
    words = ["<end>", "?", *"0123456789+ab"]
    raw = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="?"))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", unk_token="?")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_LENGTH,
        eos_token_id=0,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Start a server that speaks S3, and yield its address."""
    with serving_s3() as address:
        yield address


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a client of the S3 server. Environment variables have the server's address and credentials."""
    keys = Keys("key", "hidden")
    for name, value in variables(s3_server, keys).items():
        monkeypatch.setenv(name, value)
    return client("s3", s3_server, keys)


@pytest.fixture
def bucket(s3: Any) -> Any:
    """Create an empty bucket ``results`` on the S3 server. Return a client of the server."""
    s3.create_bucket(Bucket="results")
    for found in s3.list_objects_v2(Bucket="results").get("Contents", []):
        s3.delete_object(Bucket="results", Key=found["Key"])
    return s3
