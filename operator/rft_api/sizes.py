"""Reads the number of parameters from the name of a model, such as 7e9 from ``Qwen2.5-7B``."""

import re

_COUNT = re.compile(r"(?:(\d+)x)?(\d+(?:\.\d+)?)([MBT])(?![A-Za-z0-9])", re.IGNORECASE)
_SCALE = {"M": 1e6, "B": 1e9, "T": 1e12}


def parameter_count(text: str) -> float | None:
    """Return the number of parameters that is in a model's name, such as 7e9 for ``Qwen2.5-7B-Instruct``.

    Return ``None`` if the name has no such number. For ``8x7B``, a mixture of experts, return 8 times 7e9.
    This is more than the true number, because experts share parameters. A guess must never be too low.
    """
    found = _COUNT.search(text)
    if found is None:
        return None
    experts = int(found[1]) if found[1] else 1
    # No model has 0 parameters, so a name such as x-0m says nothing about the size.
    return experts * float(found[2]) * _SCALE[found[3].upper()] or None
