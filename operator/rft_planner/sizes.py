"""Converts between bytes and Kubernetes quantities such as ``80Gi``."""

import re

_QUANTITY = re.compile(r"^(\d+(?:\.\d+)?)(m|Ki|Mi|Gi|Ti|k|M|G|T)?$")
_UNITS = {
    None: 1.0,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
}
MIB = 2.0**20
GIB = 2.0**30


def quantity(text: str) -> float:
    """Return the number that a Kubernetes quantity stands for: ``80Gi`` gives 80 × 2**30, ``500m`` gives 0.5.

    Raises:
        ValueError: if the text is not a quantity.
    """
    found = _QUANTITY.match(text)
    if found is None:
        raise ValueError(f"{text!r} is not a quantity such as 80Gi")
    return float(found[1]) * _UNITS[found[2]]


def gib(amount: float) -> str:
    """Return a number of bytes as a Kubernetes quantity such as ``80Gi``: rounded up, and at least 1Gi."""
    return f"{max(1, -int(-amount // GIB))}Gi"


def mib(amount: float) -> str:
    """Return a number of bytes as a Kubernetes quantity such as ``512Mi``: rounded up, and at least 1Mi."""
    return f"{max(1, -int(-amount // MIB))}Mi"
