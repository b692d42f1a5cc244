"""Writes Kubernetes objects as YAML, so that kubectl reads exactly the same values from the YAML."""

from typing import Any

import yaml

from rft_api.controls import visible
from rft_api.loader import PLAIN_SCALARS


class _Dumper(yaml.SafeDumper):
    """A YAML SafeDumper that writes some strings in quotes, because kubectl would read them as other types.

    Such strings are, for example, ``1e-4`` and ``y``.
    """

    yaml_implicit_resolvers = PLAIN_SCALARS

    def ignore_aliases(self, _data: object) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def dump(body: dict[str, Any]) -> str:
    """Return one Kubernetes object as YAML text. Control and invisible characters are written as escapes."""
    text = _dumped(body, allow_unicode=True)
    # PyYAML escapes control characters, but not those that change the order of a text.
    return text if visible(text) == text else _dumped(body, allow_unicode=False)


def _dumped(body: dict[str, Any], *, allow_unicode: bool) -> str:
    return yaml.dump(body, Dumper=_Dumper, sort_keys=False, allow_unicode=allow_unicode, width=100)
