"""Reads YAML as kubectl does, so that ``rft`` and the cluster get the same values from a file.

kubectl follows YAML 1.1, but with Go's syntax for numbers:

- ``1e-4`` is a number. PyYAML alone would read a string.
- ``y`` and ``off`` are booleans, also as keys.
- A file may have several documents, or an object of ``kind: List``.

Duplicate keys are an error here, because nobody knows which value the user meant. kubectl silently uses the
last value.
"""

import math
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Hashable
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from rft_api.yaml_errors import explained


class UnreadableManifest(ValueError):
    """An error: a file cannot be read, or is not YAML with Kubernetes objects.

    The message names the file and, if known, the line.
    """


_JSON_NAMES = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list"}


class Document(NamedTuple):
    """One Kubernetes object that was read from a file."""

    source: str
    """The name of the file, and the number of the document in this file, for messages."""
    body: dict[str, Any]


class _Loader(yaml.SafeLoader):
    """A YAML SafeLoader that reads unquoted scalars, tabs and repeated anchors as kubectl does."""

    def scan_to_next_token(self) -> None:
        """Move to the next YAML token. Skip tabs like spaces, except in the indentation of a line."""
        super().scan_to_next_token()
        while self.peek() == "\t" and (self.flow_level or not self.allow_simple_key):
            while self.peek() in " \t":
                self.forward()
            super().scan_to_next_token()

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next YAML node. If its anchor has the name of an earlier anchor, it replaces that one.

        PyYAML's own method would raise an error for a second anchor with the same name.
        """
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if not isinstance(event, yaml.AliasEvent):
            self.anchors.pop(getattr(event, "anchor", None), None)
        return super().compose_node(parent, index)


_TAG = "tag:yaml.org,2002:"
_FLOAT = re.compile(
    r"""^[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*)(?:[eE][-+]?[0-9][0-9_]*)?
    |\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$""",
    re.VERBOSE,
)
_INT = re.compile(r"^[-+]?(?:0b[01_]+|0o?[0-7_]+|0[xX][0-9a-fA-F_]+|0|[1-9][0-9_]*)$")
_BOOL = re.compile(
    r"^(?:y|Y|yes|Yes|YES|on|On|ON|true|True|TRUE|n|N|no|No|NO|off|Off|OFF|false|False|FALSE)$"
)
_FLOAT_DIGITS_LIMIT = 1e21
"""Go writes a float with an exponent if its absolute value is at least this number.

A reader of JSON then reads the number as a float and not as an integer.
"""
_INLINE_DOCUMENT = re.compile(r"^---[ \t]*[^\s#]", re.MULTILINE)
_BYTE_ORDER_MARK = re.compile("^\ufeff", re.MULTILINE)
"""A byte order mark at the beginning of a line. Some editors write this mark at the beginning of a file. If
files are concatenated, it may be at the beginning of any line.
"""
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")


def _use_kubectls_resolvers() -> None:
    _Loader.yaml_implicit_resolvers = {}
    _Loader.add_implicit_resolver(f"{_TAG}bool", _BOOL, list("yYnNtTfFoO"))
    _Loader.add_implicit_resolver(f"{_TAG}null", _NULL, ["~", "n", "N", ""])
    _Loader.add_implicit_resolver(f"{_TAG}int", _INT, list("-+0123456789"))
    _Loader.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+.0123456789"))
    _Loader.add_implicit_resolver(f"{_TAG}merge", re.compile("^<<$"), ["<"])


def _construct_bool(loader: _Loader, node: yaml.ScalarNode) -> bool:
    return str(loader.construct_scalar(node)).lower() in ("y", "yes", "on", "true")


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    text = str(loader.construct_scalar(node)).replace("_", "")
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.lstrip("+"))
    octal = re.fullmatch(r"0([0-7]+)", digits)
    try:
        return _as_sent(sign * (int(octal[1], 8) if octal else int(digits, 0)))
    except ValueError:
        raise _refused(node, f"{text!r} is not a whole number") from None


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> int | float | str:
    text = str(loader.construct_scalar(node))
    plain = text.replace("_", "").lower()
    try:
        value = float(plain.replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        raise _refused(node, f"{text!r} is not a number") from None
    if math.isfinite(value):
        return _as_sent(value)
    if plain.endswith((".inf", ".nan")):
        raise _refused(node, f"{text} cannot be sent to a cluster: JSON has no such number")
    return text  # Go cannot parse numbers too large for a float, so kubectl reads them as strings.


def _as_sent(value: int | float) -> int | float:
    """Return a number from YAML as kubectl sends it to the API server in JSON.

    For example, ``8.0`` becomes the integer 8, and an integer of more than 64 bits becomes a float.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < _FLOAT_DIGITS_LIMIT:
        value = int(Decimal(repr(value)))
    return value if -(2**63) <= value < 2**63 else float(value)


def _refused(node: yaml.Node, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    result: dict[Hashable, Any] = {}
    written: set[str] = set()
    for key_node, value_node in node.value:
        value = loader.construct_object(value_node, deep=True)
        if key_node.tag == f"{_TAG}merge":
            # As in kubectl, a merge key also replaces the keys above it in the object.
            result.update(_merged(value, value_node))
            continue
        key = _key(loader, key_node)
        if key in written:
            raise _refused(key_node, f"the key {key!r} occurs twice in this object")
        written.add(key)
        result[key] = value
    return result


def _key(loader: _Loader, node: yaml.Node) -> str:
    """Return the key of a YAML mapping as text, as kubectl does, because keys in JSON are always strings.

    Raise PyYAML's ConstructorError if the key is null, a list or a mapping.
    """
    key = loader.construct_object(node, deep=True)
    if key is None or isinstance(key, (dict, list)):
        raise _refused(node, "a key must be a text")
    return str(key).lower() if isinstance(key, bool) else str(key)


def _merged(value: object, node: yaml.Node) -> dict[Hashable, Any]:
    """Return the keys and values that the YAML merge key ``<<`` adds to a mapping.

    ``value`` is the value of the merge key: an object or a list of objects. If several objects have the same
    key, the first of them gives the value.
    """
    objects = value if isinstance(value, list) else [value]
    if not all(isinstance(each, dict) for each in objects):
        raise _refused(node, "the value of the merge key << must be an object or a list of objects")
    return {key: each[key] for each in reversed(objects) for key in each}


def _construct_binary(loader: _Loader, node: yaml.ScalarNode) -> str:
    try:
        return loader.construct_yaml_binary(node).decode()
    except UnicodeDecodeError:
        raise _refused(node, "a value of type !!binary must be a text in UTF-8") from None


def _construct_untagged(loader: _Loader, node: yaml.Node) -> Any:
    """Read a YAML node with an unknown tag. The tag is ignored, but a scalar is always read as a string."""
    if isinstance(node, yaml.MappingNode):
        return _construct_mapping(loader, node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return str(loader.construct_scalar(node))  # type: ignore[arg-type]


_use_kubectls_resolvers()
_Loader.yaml_constructors = {
    name: construct
    for name, construct in _Loader.yaml_constructors.items()
    if name in (f"{_TAG}null", f"{_TAG}seq", f"{_TAG}str")
}
_Loader.add_constructor(f"{_TAG}bool", _construct_bool)
_Loader.add_constructor(f"{_TAG}int", _construct_int)
_Loader.add_constructor(f"{_TAG}float", _construct_float)
_Loader.add_constructor(f"{_TAG}map", _construct_mapping)
_Loader.add_constructor(f"{_TAG}binary", _construct_binary)
_Loader.add_constructor(None, _construct_untagged)

PLAIN_SCALARS = _Loader.yaml_implicit_resolvers
"""Regular expressions for scalars such as ``1e-4``, whose type is another one than string if they are not in
quotes.

So the dumper must write a string in quotes if one of these expressions matches the string."""


def load_documents(text: str, source: str = "manifest") -> list[Document]:
    """Return the Kubernetes objects in a YAML text.

    If an object has a list ``items``, and its kind is absent or ends with ``List``, its items are returned
    instead. ``source`` is the name of the file, for messages.

    Raises:
        UnreadableManifest: if the text is not YAML, or if a document is not an object.
    """
    if inline := _INLINE_DOCUMENT.search(text):
        line = text.count("\n", 0, inline.start()) + 1
        raise UnreadableManifest(
            f"{source}: line {line}: begin the document in the line after ---, not beside it"
        )
    try:
        parsed = list(yaml.load_all(_BYTE_ORDER_MARK.sub("", text), Loader=_Loader))
    except yaml.YAMLError as error:
        raise UnreadableManifest(f"{source}: {explained(error, text)}") from error
    documents: list[Document] = []
    for number, body in enumerate(parsed, start=1):
        if body is None:
            continue
        place = source if len(parsed) == 1 else f"{source} (document {number})"
        if not isinstance(body, dict):
            raise UnreadableManifest(
                f"{place}: is {_JSON_NAMES[type(body)]}, not a Kubernetes object, which begins with"
                " apiVersion and kind"
            )
        items = body.get("items", body) if str(body.get("kind", "List")).endswith("List") else body
        if not isinstance(items, list | None):
            documents.append(Document(place, body))
            continue
        for i, item in enumerate(items or []):
            if not isinstance(item, dict):
                raise UnreadableManifest(f"{place}: items[{i}] is not a Kubernetes object")
            documents.append(Document(f"{place} items[{i}]", item))
    return documents


def load_file(path: Path) -> list[Document]:
    """Return the Kubernetes objects in a YAML file. The items of a Kubernetes list are returned one by one.

    Raises:
        UnreadableManifest: if the file cannot be read, is not YAML, or has a document that is not an object.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-16" if data[:2] in (BOM_UTF16_LE, BOM_UTF16_BE) else "utf-8")
    except OSError as error:
        raise UnreadableManifest(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UnreadableManifest(f"{path}: {error}") from error
    return load_documents(text, str(path))
