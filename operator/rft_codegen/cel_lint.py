"""Checks whether Kubernetes 1.25 accepts the CRD's validation rules in CEL. It needs no API server.

A test with an API server is not enough, because newer servers accept CEL that 1.25 refuses. The checks are:

- All functions, macros and operators exist in 1.25. Later versions added optionals, quantities, addresses,
  formats, sets, macros with two variables, and comparisons of a whole number with a fraction.
- Every field that a rule reads is in the schema. If the field is optional, the rule tests with ``has``
  whether it is present.
- Every list that a rule uses has ``maxItems``.
- Every map whose entries a rule reads has ``maxProperties``.
- Every text that a rule compares has ``maxLength`` or an ``enum``.

The API server estimates the cost of a rule from the limits in the last three checks. It refuses the CRD if
the cost is too high.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from rft_api.cel import Cel, escape, words
from rft_codegen.validations import Schema, node_at

MACROS = words("has all exists exists_one map filter")
TYPES = words("int uint double string bytes bool type dyn duration timestamp")
FUNCTIONS = TYPES | words(
    "size matches startsWith endsWith contains"
    " getDate getDayOfMonth getDayOfWeek getDayOfYear getFullYear getHours getMilliseconds getMinutes"
    " getMonth getSeconds"
    # the library for strings, as of 1.25
    " charAt indexOf lastIndexOf lowerAscii upperAscii replace split substring trim"
    # Kubernetes' own libraries
    " isSorted sum min max find findAll"
    " url isURL getScheme getHost getHostname getPort getEscapedPath getQuery"
)
ONE_VARIABLE = {"all": 2, "exists": 2, "exists_one": 2, "filter": 2, "map": 3}
"""The CEL macros over a list, with the maximum number of arguments in Kubernetes 1.25. The variable counts as
an argument: ``all(x, x > 0)`` has two."""
MAX_LENGTH = 2048
"""Maximum number of characters in the message of a CEL rule."""

_TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<text>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")
    |(?P<number>\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)|(?P<name>[A-Za-z_]\w*)
    |(?P<sign>&&|\|\||[=!<>]=|\.\?|\[\?|[-+*/%<>!?:.,()[\]{}])""",
    re.VERBOSE,
)
_COMPARISONS = frozenset(("==", "!=", "<", "<=", ">", ">="))
_NUMBERS = ("integer", "number")


class _Token(NamedTuple):
    kind: str
    text: str


_START = _Token("", "")


class _Operand(NamedTuple):
    """One side of a comparison in CEL. For a field it has the ``path``, such as ``("self", "model")``. For a
    literal it has the OpenAPI ``type``. Both are empty for any other expression.
    """

    path: tuple[str, ...] = ()
    type: str = ""


def lint(cel: Cel, schema: Schema) -> list[str]:
    """Check whether Kubernetes 1.25 accepts a validation rule in CEL. Return a message for each problem.
    ``schema`` is the OpenAPI schema of the whole RFTJob.
    """
    try:
        node = node_at(schema, cel.where)
    except KeyError as missing:
        return [f"{cel.where}: the schema has no such path: {missing}"]
    tokens = _tokens(cel.expression)
    found = [*_message(cel), *_unknown(tokens), *_variables(tokens), *_calls(tokens)]
    for path in dict.fromkeys(_paths(tokens).values()):
        found += _field(path, node, cel.expression)
    found += _items(tokens, node, cel.expression)
    found += _compared(tokens, node)
    return [f"{cel.where or 'the object'}: {cel.expression}: {problem}" for problem in found]


def _tokens(expression: str) -> list[_Token]:
    tokens, at = [], 0
    while at < len(expression):
        match = _TOKEN.match(expression, at)
        kind, text = (match.lastgroup or "", match[0]) if match else ("unknown", expression[at])
        if kind != "space":
            tokens.append(_Token(kind, text))
        at += len(text)
    return tokens


def _message(cel: Cel) -> Iterator[str]:
    if not cel.message or "\n" in cel.message or len(cel.message) > MAX_LENGTH:
        yield f"the rule's message must be one line of at most {MAX_LENGTH} characters"


def _unknown(tokens: list[_Token]) -> Iterator[str]:
    for token in tokens:
        if token.kind == "unknown":
            yield f"{token.text!r} is not valid in CEL"
        if token.text in (".?", "[?"):
            yield "Kubernetes 1.25 has no optional values in CEL"


def _variables(tokens: list[_Token]) -> Iterator[str]:
    """Yield a message for each name in a CEL rule that Kubernetes 1.25 does not know, such as ``sets``."""
    known = {"self", "oldSelf", "true", "false", "null", "in"} | {
        tokens[i + 2].text for i, token in enumerate(tokens[:-2]) if token.text in ONE_VARIABLE
    }
    for before, token, after in zip([_START, *tokens], tokens, [*tokens[1:], _START], strict=False):
        free = token.kind == "name" and before.text != "." and after.text != "("
        if free and token.text not in known | TYPES:
            yield f"{token.text} is not known to Kubernetes 1.25"


def _calls(tokens: list[_Token]) -> Iterator[str]:
    for i, token in enumerate(tokens[:-1]):
        if token.kind != "name" or tokens[i + 1].text != "(" or token.text == "in":
            continue
        if token.text not in MACROS | FUNCTIONS:
            yield f"{token.text} is not a CEL function of Kubernetes 1.25"
        if _arguments(tokens, i + 1) > ONE_VARIABLE.get(token.text, len(tokens)):
            yield f"Kubernetes 1.25 has no {token.text} with two variables"


def _arguments(tokens: list[_Token], opening: int) -> int:
    """Return the number of arguments of a call in CEL. ``opening`` is the index of the call's token "("."""
    depth, commas = 0, 0
    for token in tokens[opening:]:
        depth += (token.text in "([{") - (token.text in ")]}")
        if depth == 0:
            break
        commas += depth == 1 and token.text == ","
    return commas + 1


def _paths(tokens: list[_Token]) -> dict[int, tuple[str, ...]]:
    """Return the paths of all fields that a CEL rule reads, such as ``("self", "model", "name")``.

    Each path begins with ``self`` or ``oldSelf``. The key is the index of the path's first token.
    """
    found = {}
    for i, token in enumerate(tokens):
        if token.text not in ("self", "oldSelf") or (i and tokens[i - 1].text == "."):
            continue
        found[i] = _path(tokens, i)
    return found


def _path(tokens: list[_Token], start: int) -> tuple[str, ...]:
    """Return the path of the field that begins at ``tokens[start]``: the name of a variable, and the names of
    the fields after it. The name of a method is left out.
    """
    names, at = [tokens[start].text], start + 1
    while at + 1 < len(tokens) and tokens[at].text == "." and tokens[at + 1].kind == "name":
        if at + 2 < len(tokens) and tokens[at + 2].text == "(":
            break  # the call of a method
        names.append(tokens[at + 1].text)
        at += 2
    return tuple(names)


def _items(tokens: list[_Token], node: Schema, expression: str) -> Iterator[str]:
    """Check the fields of list items that a CEL macro reads, such as ``x.name`` in ``self.all(x, x.name)``.
    Yield a message for each field that the schema lacks, or that may be absent and is not tested with
    ``has``.

    - ``tokens``: the tokens of the rule.
    - ``node``: the schema of ``self``.
    - ``expression``: the text of the rule.
    """
    ends = {start + 2 * len(path): path for start, path in _paths(tokens).items()}
    for i, token in enumerate(tokens[:-2]):
        listed = _resolve(ends[i], node) if token.text in ONE_VARIABLE and i in ends else None
        if listed is None or "items" not in listed:
            continue
        variable = tokens[i + 2].text
        starts = (j for j in range(i + 3, len(tokens)) if tokens[j].text == variable)
        found = {_path(tokens, j) for j in starts if tokens[j - 1].text != "."}
        for path in sorted(found):
            yield from _field(path, listed["items"], expression)


def _child(node: Schema, identifier: str) -> tuple[str, Schema] | None:
    properties = node.get("properties", {})
    return next(((name, child) for name, child in properties.items() if escape(name) == identifier), None)


def _resolve(path: tuple[str, ...], node: Schema) -> Schema | None:
    for identifier in path[1:]:
        found = _child(node, identifier)
        if found is None:
            return None
        node = found[1]
    return node


def _field(path: tuple[str, ...], node: Schema, expression: str) -> Iterator[str]:
    for depth, identifier in enumerate(path[1:], start=2):
        shown = ".".join(path[:depth])
        found = _child(node, identifier)
        if found is None:
            yield f"the schema has no field {shown}"
            return
        name, child = found
        always = name in node.get("required", ()) or "default" in child
        if not always and f"has({shown})" not in expression:
            yield f"{shown} may be absent; test it with has({shown})"
        node = child


def _compared(tokens: list[_Token], node: Schema) -> Iterator[str]:
    paths = _paths(tokens)
    called = {path for i, path in paths.items() if _is_called(tokens, i, path)}
    for path in sorted(called):
        yield from _bounds(path, node)
    for i, token in enumerate(tokens):
        if token.text not in _COMPARISONS:
            continue
        left, right = _before(tokens, paths, i), _after(tokens, paths, i)
        for operand in (left, right):
            if operand.path:
                yield from _bounds(operand.path, node)
        kinds = {_type(left, node), _type(right, node)}
        if kinds == set(_NUMBERS):
            yield "Kubernetes 1.25 cannot compare a whole number with a fraction; convert it with double()"


def _is_called(tokens: list[_Token], start: int, path: tuple[str, ...]) -> bool:
    after = start + 2 * len(path) - 1
    return after < len(tokens) and tokens[after].text == "."


def _before(tokens: list[_Token], paths: dict[int, tuple[str, ...]], at: int) -> _Operand:
    for start, path in paths.items():
        if start + 2 * len(path) - 1 == at:
            return _Operand(path)
    return _literal(tokens[at - 1]) if at else _Operand()


def _after(tokens: list[_Token], paths: dict[int, tuple[str, ...]], at: int) -> _Operand:
    if at + 1 in paths:
        path = paths[at + 1]
        return _Operand() if _is_called(tokens, at + 1, path) else _Operand(path)
    return _literal(tokens[at + 1]) if at + 1 < len(tokens) else _Operand()


def _literal(token: _Token) -> _Operand:
    if token.kind == "number":
        return _Operand(type="integer" if token.text.isdigit() else "number")
    return _Operand(type="string" if token.kind == "text" else "")


def _type(operand: _Operand, node: Schema) -> str:
    if not operand.path:
        return operand.type
    return str((_resolve(operand.path, node) or {}).get("type", ""))


def _bounds(path: tuple[str, ...], node: Schema) -> Iterator[str]:
    """Yield a message for each limit that a field lacks in the schema. ``path`` is the path of the field, and
    ``node`` is the schema of ``self``.

    - A map at ``path`` needs ``maxProperties``.
    - A text at ``path`` needs ``maxLength`` or an ``enum``.
    - A list at ``path``, or in the object at ``path``, needs ``maxItems``.
    """
    found = _resolve(path, node)
    if found is None:
        return  # _field reports that the field does not exist
    shown = ".".join(path)
    if "additionalProperties" in found and "maxProperties" not in found:
        yield f"{shown} needs maxProperties"
    if found.get("type") == "string" and not {"maxLength", "enum"} & set(found):
        yield f"{shown} needs maxLength"
    for where, child in _lists(found, shown):
        if "maxItems" not in child:
            yield f"{where} needs maxItems"


def _lists(node: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    if node.get("type") == "array":
        yield path, node
        yield from _lists(node["items"], f"{path}[]")
    for name, child in node.get("properties", {}).items():
        yield from _lists(child, f"{path}.{name}")
    extra: Any = node.get("additionalProperties")
    if isinstance(extra, dict):
        yield from _lists(extra, f"{path}{{}}")
