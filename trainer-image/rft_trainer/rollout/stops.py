"""Splits the entries of ``sampling.stop`` into texts and special tokens.

The text of a completion has no special tokens. So the sampler cannot find a stop text such as ``<|im_end|>``
in it, and must look for the token id instead.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rft_run.errors import ConfigurationError


class Stops(NamedTuple):
    """The texts and token ids that end a completion, besides the model's own end tokens."""

    texts: tuple[str, ...]
    token_ids: tuple[int, ...]


def split_stops(stop: Sequence[str] | None, tokenizer: Any) -> Stops:
    """Return each stop text as a token id if it is a special token, else as a text.

    Raises:
        ConfigurationError: a stop text has a special token and other text. No completion contains such a
            text.
    """
    special = special_tokens(tokenizer)
    texts, token_ids = [], []
    for place, text in enumerate(stop or ()):
        inside = [token for token in special if token in text]
        if text in special:
            token_ids.append(special[text])
        elif inside:
            longest = max(inside, key=len)
            raise ConfigurationError(
                f"spec.sampling.stop[{place}]: {text!r} has the special token {longest!r} beside other text."
                " Special tokens are not in the text of a completion, so no completion would stop there."
                " Allowed are a text without special tokens and a special token alone, for instance"
                f" {longest!r}"
            )
        else:
            texts.append(text)
    return Stops(tuple(texts), tuple(token_ids))


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """Return the special tokens, which decoding leaves out, with their ids."""
    added = {
        str(token): token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    return added | dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
