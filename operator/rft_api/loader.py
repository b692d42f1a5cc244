"""Read YAML as kubectl reads it, so that ``rft`` and the cluster never disagree about a file.

kubectl follows YAML 1.1 with Go's number syntax: ``1e-4`` is a number (PyYAML reads a string), ``y``
and ``off`` are booleans, keys included. It also accepts several documents and ``kind: List``.
Duplicate keys are an error here: kubectl's strict decoding refuses them too.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

import yaml


class UnreadableManifest(ValueError):
    """The file is not YAML that holds Kubernetes objects; the message names file and line."""


class Document(NamedTuple):
    """One object of a file."""

    source: str
    """File, and number of the document in it, for messages."""
    body: dict[str, Any]


class _Loader(yaml.SafeLoader):
    """SafeLoader with kubectl's resolution of plain scalars."""


_FLOAT = re.compile(
    r"""^[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?
    |\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$""",
    re.VERBOSE,
)
_INT = re.compile(r"^[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$")
_BOOL = re.compile(
    r"^(?:y|Y|yes|Yes|YES|on|On|ON|true|True|TRUE|n|N|no|No|NO|off|Off|OFF|false|False|FALSE)$"
)
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")


def _use_kubectls_resolvers() -> None:
    _Loader.yaml_implicit_resolvers = {}
    tag = "tag:yaml.org,2002:"
    _Loader.add_implicit_resolver(f"{tag}bool", _BOOL, list("yYnNtTfFoO"))
    _Loader.add_implicit_resolver(f"{tag}null", _NULL, ["~", "n", "N", ""])
    _Loader.add_implicit_resolver(f"{tag}int", _INT, list("-+0123456789"))
    _Loader.add_implicit_resolver(f"{tag}float", _FLOAT, list("-+.0123456789"))
    _Loader.add_implicit_resolver(f"{tag}merge", re.compile("^<<$"), ["<"])


def _construct_bool(loader: _Loader, node: yaml.ScalarNode) -> bool:
    return str(loader.construct_scalar(node)).lower() in ("y", "yes", "on", "true")


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.lstrip("+"))
    octal = re.fullmatch(r"0([0-7]+)", digits)
    return sign * (int(octal[1], 8) if octal else int(digits, 0))


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(
        str(loader.construct_scalar(node))
        .replace("_", "")
        .lower()
        .replace(".inf", "inf")
        .replace(".nan", "nan")
    )


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    loader.flatten_mapping(node)
    result: dict[Hashable, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        # JSON has string keys only; this is how kubectl writes the others.
        key = str(key).lower() if isinstance(key, bool) else str(key)
        if key in result:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} stands here twice", key_node.start_mark
            )
        result[key] = loader.construct_object(value_node, deep=True)
    return result


_use_kubectls_resolvers()
_Loader.add_constructor("tag:yaml.org,2002:bool", _construct_bool)
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)

PLAIN_SCALARS = _Loader.yaml_implicit_resolvers
"""What is not text without quotes; a dumper needs to know."""


def load_documents(text: str, source: str = "manifest") -> list[Document]:
    """Return the objects of a YAML text, the items of a ``kind: List`` one by one.

    Raises:
        UnreadableManifest: if the text is not YAML or a document is not an object.
    """
    try:
        parsed = list(yaml.load_all(text, Loader=_Loader))
    except yaml.YAMLError as error:
        raise UnreadableManifest(f"{source}: {error}") from error
    documents: list[Document] = []
    for number, body in enumerate(parsed, start=1):
        if body is None:
            continue
        place = source if len(parsed) == 1 else f"{source} (document {number})"
        if not isinstance(body, dict):
            raise UnreadableManifest(f"{place}: is a {type(body).__name__}, not a Kubernetes object")
        items = body.get("items") if str(body.get("kind", "")).endswith("List") else None
        if not isinstance(items, list):
            documents.append(Document(place, body))
            continue
        for i, item in enumerate(items):
            if not isinstance(item, dict):
                raise UnreadableManifest(f"{place}: items[{i}] is not a Kubernetes object")
            documents.append(Document(f"{place} items[{i}]", item))
    return documents


def load_file(path: Path) -> list[Document]:
    """Return the objects of a file.

    Raises:
        UnreadableManifest: if the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableManifest(f"{path}: {error}") from error
    return load_documents(text, str(path))
