"""Chat templates of published models, as the package TRL contains them, with tokenizers of characters."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.trainer.cached_packages import installed

TRL = "trl==1.16.0"
CHARACTERS = "".join(map(chr, range(32, 127))) + "\n\té…"
_SPECIAL = re.compile(r"<\|[^|<>\s]+\|>|<｜[^｜\s]+｜>|<(?:start|end)_of_turn>")


class Published(NamedTuple):
    """A chat template in TRL.

    - ``ends``: the tokens with which the model ends its turn, as its generation_config.json has them.
    - ``parser``: the name of TRL's response template, with which transformers reads tool calls. Empty: the
      tools of an environment are text.
    """

    name: str
    ends: tuple[str, ...]
    parser: str = ""


TEMPLATES = (
    Published("qwen2_5", ("<|im_end|>",), "qwen3"),
    Published("qwen3", ("<|im_end|>",), "qwen3"),
    Published("qwen3_instruct_2507", ("<|im_end|>",), "qwen3"),
    Published("llama3_1", ("<|eot_id|>", "<|eom_id|>"), "llama3"),
    Published("llama3_2", ("<|eot_id|>", "<|eom_id|>"), "llama3"),
    Published("gptoss", ("<|return|>", "<|call|>"), "gptoss"),
    Published("qwen3", ("<|im_end|>",)),
    Published("llama3", ("<|eot_id|>",)),
    Published("llama3_1", ("<|eot_id|>", "<|eom_id|>")),
    Published("gptoss", ("<|return|>", "<|call|>")),
    Published("deepseek_r1_distill", ("<｜end▁of▁sentence｜>",)),
    Published("gemma", ("<end_of_turn>",)),
    Published("gemma3", ("<end_of_turn>",)),
    Published("phi3", ("<|end|>",)),
    Published("phi3_5", ("<|end|>",)),
    Published("glm4moe", ("<|user|>", "<|observation|>")),
)


def package() -> Path:
    """Return the folder of the package TRL, which is installed into the cache if it is not there."""
    return installed(TRL) / "trl"


@cache
def parsers() -> dict[str, dict[str, Any]]:
    """Return TRL's response templates that are plain dicts, by name. Nothing of the module is executed."""
    found = {}
    for node in ast.parse((package() / "chat_template_utils.py").read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name.endswith("_template") and isinstance(node.value, ast.Dict):
                try:
                    found[name.removesuffix("_template")] = ast.literal_eval(node.value)
                except ValueError:  # it is computed from other ones
                    continue
    return found


def tokenizer_of(published: Published) -> PreTrainedTokenizerFast:
    """Return a tokenizer with the published chat template. Its tokens are characters and special tokens."""
    template = (package() / "chat_templates" / f"{published.name}.jinja").read_text()
    words = ["?", *(character for character in CHARACTERS if character != "?")]
    raw = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="?"))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    raw.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|bos|>", eos_token=published.ends[0],
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    special = sorted({*_SPECIAL.findall(template), *published.ends})
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    tokenizer.chat_template = template
    if published.parser:
        tokenizer.response_template = parsers()[published.parser]
    return tokenizer
