"""Finds the answer in a thinking model's completion. The answer follows the thought, after </think>."""

_OPEN, _CLOSE = "<think>", "</think>"


def opens_thought(prompt: str) -> bool:
    """Return whether a prompt, rendered by the chat template, ends with <think>. Then the completion begins
    inside a thought. Chat templates of some thinking models render such prompts.
    """
    return prompt.rstrip().endswith(_OPEN)


def answer(completion: str, *, inside: bool = False) -> str | None:
    """Return the answer in a completion: the text after the last </think>, or the whole completion if it has
    no thought. Return None if a thought is not closed by </think>, or if nothing follows the last thought.

    ``inside``: whether the prompt ends with <think>, so that the completion begins inside a thought. If the
    completion has </think> without <think>, it is read in the same way.
    """
    _, closed, rest = completion.rpartition(_CLOSE)
    if (inside and not closed) or _OPEN in rest:
        return None
    return (rest.strip() or None) if closed else rest
