"""A fake tokenizer, for tests without a model."""

from typing import Any


class WordTokenizer:
    """A tokenizer with one token for each word. The generation prompt is one token too."""

    chat_template: str | None = "words"

    def apply_chat_template(self, conversation: list[dict[str, Any]], **options: Any) -> Any:
        assert options["add_generation_prompt"]
        if not options["tokenize"]:
            return " ".join(message["content"] for message in conversation)
        assert options["return_dict"] is False
        words = " ".join(message["content"] for message in conversation).split()
        if "refuse" in words:
            raise ValueError("roles must alternate")
        return [len(word) for word in words] + [options.get("marker", 0)]

    def decode(self, token_ids: list[int]) -> str:
        return " ".join(map(str, token_ids))
