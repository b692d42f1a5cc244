"""Finds the answer in a thinking model's completion. The answer follows the thought, after </think>."""

_OPEN, _CLOSE = "<think>", "</think>"


def opens_thought(prompt: str) -> bool:
    """Return whether a rendered prompt ends with <think>, as chat templates of thinking models do."""
    return prompt.rstrip().endswith(_OPEN)


def answer(completion: str, *, inside: bool = False) -> str | None:
    """Return the text after the last thought of a completion, or the whole completion if it has no thought.

    Return None if a thought does not end, or if nothing follows the last thought.

    ``inside``: whether the prompt ends with <think>, so that the completion begins inside a thought. A
    completion with </think> but without <think> also counts as one that begins inside a thought.
    """
    _, closed, rest = completion.rpartition(_CLOSE)
    if (inside and not closed) or _OPEN in rest:
        return None
    return (rest.strip() or None) if closed else rest
