"""Finds out from a model's name whether the model writes a thought before its answer."""

from rft_planner.catalogue import bare_name

_WORDS = frozenset({"thinking", "reasoning", "reasoner", "r1", "qwq", "magistral", "think"})
_FAMILIES = ("qwen3", "smollm3", "gpt-oss")
"""Families of models whose chat versions think unless a request turns thinking off."""
_PLAIN = frozenset({"instruct", "base", "pt", "coder", "embedding", "reranker"})


def thinks(model: str) -> bool:
    """Return whether the name of a model says that the model thinks by default. Return False for unknown
    names.

    ``model`` is a hub name or a path. Only its last part is read.
    """
    name = bare_name(model)
    words = set(name.replace("_", "-").split("-"))
    if words & _WORDS:
        return True
    return name.startswith(_FAMILIES) and not words & _PLAIN
