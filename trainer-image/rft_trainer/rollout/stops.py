"""Splits the entries of the spec's ``sampling.stop``, which end a completion, into texts and special tokens.

The text of a completion has no special tokens. So the sampler cannot find an entry such as ``<|im_end|>`` in
the text, and must look for the token id instead.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rft_run.errors import ConfigurationError


class Stops(NamedTuple):
    """The texts and token ids that end a completion, besides the model's own end tokens."""

    texts: tuple[str, ...]
    token_ids: tuple[int, ...]


def split_stops(stop: Sequence[str] | None, tokenizer: Any) -> Stops:
    """Divide the entries of ``sampling.stop`` into special tokens, as token ids, and texts.

    ``stop``: the entries. None: there are none. Raises ConfigurationError if an entry has a special token and
    other text, because the text of a completion never contains a special token.
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
    """Return the token id of each special token of a tokenizer. Decoding leaves special tokens out."""
    added = {
        str(token): token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    return added | dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
