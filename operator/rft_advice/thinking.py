"""Finds out from a model's name whether the model writes its reasoning (a "thought") before the answer."""

from rft_planner.catalogue import bare_name

_WORDS = frozenset({"thinking", "reasoning", "reasoner", "r1", "qwq", "magistral", "think"})
_FAMILIES = ("qwen3", "smollm3", "gpt-oss")
"""Beginnings of the names of models whose chat versions think, unless a request turns thinking off."""
_PLAIN = frozenset({"instruct", "base", "pt", "coder", "embedding", "reranker"})


def thinks(model: str) -> bool:
    """Return whether a model writes its reasoning before the answer by default, as far as its name says.
    Return False for unknown names.

    ``model`` is a hub name or a path. Only the part after the last ``/`` is read.
    """
    name = bare_name(model)
    words = set(name.replace("_", "-").split("-"))
    if words & _WORDS:
        return True
    return name.startswith(_FAMILIES) and not words & _PLAIN
