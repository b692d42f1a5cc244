"""Divides what a thinking model wrote into thought and answer. Nothing else decides where the one ends."""

_OPEN, _CLOSE = "<think>", "</think>"


def opens_thought(prompt: str) -> bool:
    """Return whether a rendered prompt ends inside a thought, as templates of thinking models let it."""
    return prompt.rstrip().endswith(_OPEN)


def answer(completion: str, *, inside: bool = False) -> str | None:
    """Return the answer of a completion: all of it without a thought, else what follows the last thought.

    ``inside`` says that the prompt already opened the thought. Where it does not, a completion that only
    closes one began inside it too. None for one that was cut inside a thought, or has nothing behind it.
    """
    _, closed, rest = completion.rpartition(_CLOSE)
    if (inside and not closed) or _OPEN in rest:
        return None
    return (rest.strip() or None) if closed else rest
