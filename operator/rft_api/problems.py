"""Converts validation errors of a manifest into messages that tell the user what to change."""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from rft_api import foreign, meant
from rft_api.base import Model
from rft_api.controls import one_line
from rft_api.forms import FORMS, LABEL, SIZE


class Problem(NamedTuple):
    """One problem of a manifest, with the path of the field and the message for the user."""

    path: str
    """Path of the field in the manifest, e.g. ``spec.sampling.topK``."""
    message: str
    """The text for the user: the value, what is allowed, and how to correct it."""

    def __str__(self) -> str:
        # A manifest may come from a stranger. So control characters in its names of fields and in its values
        # must not reach the terminal.
        return one_line(f"{self.path}: {self.message}" if self.path else self.message)


class InvalidManifest(ValueError):
    """An error: a manifest is not valid. The attribute ``problems`` is a tuple of all its problems."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)


def from_validation_error(error: ValidationError, root: type[Model]) -> list[Problem]:
    """Convert the errors that pydantic found in a manifest to problems for the user, one for each error.

    A problem names the field, the value, what is allowed, and the correction. ``root`` is the pydantic class
    with which the manifest was validated.
    """
    return [
        Problem(join_path(_loc(detail)), _message(detail, root)) for detail in error.errors(include_url=False)
    ]


def _loc(detail: ErrorDetails) -> tuple[int | str, ...]:
    """Return the location of the field or list item that one of pydantic's errors is about.

    A location has the form ``("spec", "graders", 0, "name")``. For a null field and for a duplicate item,
    pydantic reports only the location of the object or list. So this function adds the name of the field, or
    the index of the item.
    """
    inside = {"null_value": "field", "duplicate_item": "index"}.get(detail["type"])
    return (*detail["loc"], detail["ctx"][inside]) if inside is not None else detail["loc"]


def join_path(loc: Iterable[int | str]) -> str:
    """Return a location as a path: ``("spec", "graders", 0, "name")`` becomes ``spec.graders[0].name``."""
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


_TYPE_NAMES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_64_bits": "a whole number of 64 bits",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a text",
    "bool_type": "true or false",
    "scalar_type": "a text, a number, true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
_SIZES = {
    "string_too_short": ("min_length", "is too short; at least {} character{} {} needed"),
    "string_too_long": ("max_length", "is too long; at most {} character{} {} allowed"),
    "too_short": ("min_length", "has too few entries; at least {} {} needed"),
    "too_long": ("max_length", "has too many entries; at most {} {} allowed"),
}


def _message(detail: ErrorDetails, root: type[Model]) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "missing":
        return f"is required{_example(detail['loc'], root)}"
    if kind == "null_value":
        return _empty(_loc(detail), root)
    if kind == "extra_forbidden":
        return f"no such field{_suggestion(detail['loc'], root)}"
    if kind == "duplicate_item":
        first = join_path((*detail["loc"], context["first"]))
        return f"{context['value']!r} is also the {context['key']} of {first}; give each item its own"
    if kind == "literal_error":
        meaning = _meant(value, context) or _nearest_option(value, detail["loc"], root)
        return f"{_show(value)} is not one of {_options(context)}{meaning}"
    bounds = bounds_text(_limits(detail["loc"], root))
    if kind in _TYPE_NAMES:
        allowed = f" {bounds}" if bounds else ""
        return f"{_show(value)} is not {_TYPE_NAMES[kind]}{allowed}{_fix(value, detail, root)}"
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return f"{_show(value)} is out of range; allowed is {bounds}{_inside(value, detail['loc'], root)}"
    if kind == "string_pattern_mismatch":
        return _formless(value, context, detail["loc"], root)
    if kind in _SIZES:
        return _wrong_size(detail, root)
    return f"{_show(value)}: {detail['msg']}"


def _empty(loc: Sequence[int | str], root: type[Model]) -> str:
    """Return the message for a field whose value in the manifest is null: what is wrong, and what to write.

    ``loc`` is the location of the field in pydantic's form.
    """
    info = _field(loc, root)
    model = meant.model_in(info.annotation) if info is not None else None
    if info is None or model is None:
        return "is null; give it a value or remove the line"
    if not info.is_required():
        everything = not any(each.is_required() for each in model.model_fields.values())
        return f"is null; {'write {}, ' if everything else ''}give it fields or remove the line"
    return f"is empty (null); write its fields below it, indented further: {_fields_of(model)}"


def _fields_of(model: type[Model]) -> str:
    """Return the names of the required fields of a class, joined by commas.

    If no field is required, return the names of all fields.
    """
    names = [info.alias or name for name, info in model.model_fields.items()]
    required = [info.alias or name for name, info in model.model_fields.items() if info.is_required()]
    return ", ".join(required or names)


def _formless(value: str, context: dict[str, Any], loc: Sequence[int | str], root: type[Model]) -> str:
    """Return the message for a text that does not match the regular expression of its field.

    The message describes the form that the field needs, and has a correction if one can be guessed.

    - ``value``, ``loc``: the text, and the location of the field in pydantic's form
    - ``context``: details of pydantic's error, with the regular expression
    """
    form = FORMS.get(str(context.get("pattern")))
    if form is None:
        return f"{_show(value)} does not match the pattern of this field; see rft explain"
    written = form.proposal(value, _limits(loc, root).get("max_length"))
    return f"{_show(value)} is not {form.words}{_written(written)}"


def _wrong_size(detail: ErrorDetails, root: type[Model]) -> str:
    """Return the message for a text with too few or too many characters, or a list with too few or too many
    items.
    """
    value, info = detail["input"], _field(detail["loc"], root)
    key, said = _SIZES[detail["type"]]
    limit = int(detail["ctx"][key])
    verb = "is" if limit == 1 else "are"
    if not isinstance(value, str):
        return said.format(limit, verb) + (_example(detail["loc"], root) if not value else "")
    if not value:
        required = info is None or info.is_required()
        return f"is empty; give it a value{'' if required else ' or remove the line'}"
    text = f"{_show(value)} {said.format(limit, '' if limit == 1 else 's', verb)}"
    form = FORMS.get(_constraint(info, "pattern")) if info is not None else None
    written = form.proposal(value, limit) if form is not None else ""
    return f"{text}; it has {len(value)}{_written(written)}"


def _written(text: str) -> str:
    """Return the advice "; write TEXT" for the end of a message, or "" if ``text`` is empty.

    If YAML would read ``text`` as a number, the advice shows it in quotes.
    """
    return f"; write {_show(text) if _is_quoted_number(text) else text}" if text else ""


def _options(context: dict[str, Any]) -> str:
    return str(context.get("expected", "")).replace(" or ", ", ")


def _meant(value: object, context: dict[str, Any]) -> str:
    """Return advice that names the allowed value that the user probably meant by ``value``.

    The user may have written a similar value, the beginning of the allowed value, or its initials, such as
    ``RWO`` for ``ReadWriteOnce``. ``context`` has the allowed values, as pydantic reports them. Return "" if
    no allowed value is similar.
    """
    options = [option.strip() for option in _options(context).split(",")]
    if _is_quoted_number(value) and str(value) in options:
        return f"; write {value} without quotes"
    texts = {meant.fold(option.strip("'")): option for option in options}
    if not isinstance(value, str):
        return ""
    folded = meant.fold(value)
    close = difflib.get_close_matches(folded, texts, 1)
    begun = [text for text in texts if folded and text.startswith(folded)]
    short = [text for text, option in texts.items() if folded == _initials(option)]
    found = [*short, *begun[: len(begun) == 1], *close]
    return f"; did you mean {texts[found[0]]}?" if found else ""


def _initials(option: str) -> str:
    return "".join(character for character in option if character.isupper()).lower()


def _nearest_option(value: object, loc: Sequence[int | str], root: type[Model]) -> str:
    """Return advice that proposes an allowed value in place of the wrong ``value`` of the field at ``loc``.

    It proposes the first of these that exists, or is "" if none exists:

    - the allowed number that is nearest to ``value``
    - the default of the field
    - the first allowed text
    """
    info = _field(loc, root)
    if info is None or isinstance(loc[-1], int):
        return ""
    choices = _choices(info)
    numbers = [each for each in choices if isinstance(each, int)]
    if numbers and isinstance(value, int | float):
        return f"; write {min(numbers, key=lambda each: abs(each - value))}"
    if isinstance(info.default, str | int | float):
        default = info.default if isinstance(info.default, str) else _number(info.default)
        return f"; write {default}, the default"
    texts = [each for each in choices if isinstance(each, str)]
    return f"; write {texts[0]}, for example" if texts else ""


def _choices(info: FieldInfo) -> tuple[Any, ...]:
    """Return the allowed values of a field with a Literal type, or an empty tuple for any other field."""
    found = [each for each in _types(info.annotation) if get_origin(each) is Literal]
    return tuple(get_args(found[0])) if found else ()


def _inside(value: object, loc: Sequence[int | str], root: type[Model]) -> str:
    """Return advice on what to write in place of a number that is out of the range of the field at ``loc``.

    The advice proposes the first of these that exists, or is "" if none exists:

    - the number divided by 100, if the user probably wrote a percentage, such as 95 for 0.95
    - the nearest allowed number
    - the default of the field
    - an example of the field
    """
    limits, info = _limits(loc, root), _field(loc, root)
    if not isinstance(value, int | float):
        return ""
    if 2 <= value <= 100 and limits.get("le", limits.get("lt")) in (0.5, 1) and _within(value / 100, limits):
        return f"; write {_number(value / 100)}"
    near = max(value, limits.get("ge", value))
    near = min(near, limits.get("le", near))
    if _within(near, limits):
        return f"; write {_number(near)}"
    default = info.default if info is not None else None
    if isinstance(default, int | float):
        return f"; write {_number(default)}, the default"
    return _example(loc, root)


EXAMPLES = {
    "metadata": "metadata: {name: my-job}",
    "metadata.name": "name: my-job",
    "graders.name": "name: right",
    "configMap.name": "name: my-files",
    "secretRef.name": "name: my-secret",
    "secretRef.key": "key: token",
    "spec.model": "model: {name: Qwen/Qwen2.5-7B-Instruct}",
    "spec.model.name": "name: Qwen/Qwen2.5-7B-Instruct",
    "spec.dataset": "dataset: {uri: ./rows.jsonl}",
    "spec.graders": "graders: [{name: right, exactMatch: {}}]",
    "spec.output": "output: {hub: {repository: my-team/my-adapter}}",
    "output.hub": "hub: {repository: my-team/my-adapter}",
    "hub.repository": "repository: my-team/my-adapter",
    "output.s3": "s3: {uri: s3://my-bucket/adapters/my-job}",
    "s3.uri": "uri: s3://my-bucket/adapters/my-job",
    "spec.storage": "storage: {claimTemplate: {size: 20Gi}}",
    "clipLow": "clipLow: 0.2",
    "maxGpuHours": "maxGpuHours: 10",
    "canary": "canary: 0.1",
    "scale": "scale: {min: 0, max: 10}",
    "columns": "columns: {prompt: question}",
    "secretRef": "secretRef: {name: my-secret, key: token}",
    "claimName": "claimName: my-claim",
    "size": "size: 20Gi",
    "url": "url: https://example.com/v1",
    "prompt": "prompt: 'How good is {completion}?'",
    "pattern": "pattern: '[0-9]+'",
}
"""Examples of fields in YAML, for messages. The key is one of these:

- the path of the field, such as ``spec.model.name``
- the names of the field's object and of the field, such as ``graders.name``
- only the name of the field, such as ``size``"""


def _example(loc: Sequence[int | str], root: type[Model]) -> str:
    """Return advice that shows an example in YAML of the field at ``loc``, a location in pydantic's form.

    If there is no example for an object, the advice lists the names of the object's fields. If there is none
    for another field, return "".
    """
    named = [str(part) for part in loc if not isinstance(part, int)]
    found = EXAMPLES.get(join_path(loc)) or EXAMPLES.get(".".join(named[-2:])) or EXAMPLES.get(named[-1])
    if found is not None:
        return f"; write {found}"
    info = _field(loc, root)
    model = meant.model_in(info.annotation) if info is not None else None
    return f"; its fields are {_fields_of(model)}" if model is not None else ""


def _fix(value: object, detail: ErrorDetails, root: type[Model]) -> str:
    """Return advice on how to correct a value of the wrong type, or "" if there is no advice.

    ``detail`` is pydantic's error about the value.
    """
    kind, loc = detail["type"], detail["loc"]
    if kind == "string_type":
        return _as_text(value, loc, root)
    if kind.startswith(("int_", "float_")):
        return _as_number(value, loc, root, whole=kind.startswith("int_"))
    if kind == "bool_type" and (read := meant.boolean(value)):
        return f"; write {read}{' without quotes' if read == value else ''}"
    if kind == "list_type":
        if isinstance(value, dict):
            return "; begin its first line with a dash and a space"
        return f"; write [{_show(value)}]" if isinstance(value, str | int | float) else ""
    if kind == "dict_type":
        return _example(loc, root)
    if kind in ("model_type", "model_attributes_type"):
        return _as_object(value, loc, root)
    return ""


def _as_text(value: object, loc: Sequence[int | str], root: type[Model]) -> str:
    """Return advice on how to write ``value`` as text, because the field at ``loc`` needs a text.

    Return "" if ``value`` is not a number, a boolean or an object.
    """
    info = _field(loc, root)
    form = FORMS.get(_constraint(info, "pattern")) if info is not None else None
    if isinstance(value, int | float) and not isinstance(value, bool) and form is not None:
        unit = "Gi" if form is SIZE else ""
        if written := f"{value}{unit}" if unit else form.proposal(str(value)):
            return f"; write {written}"
    if isinstance(value, dict):
        return "; write it as text, with a | behind the colon and its lines indented below"
    return _in_quotes(value)


def _in_quotes(value: object) -> str:
    if not isinstance(value, int | float):
        return ""
    words = "y, yes and on" if value else "n, no and off"
    note = f" (YAML reads {words} without quotes as {_show(value)}, too)" if isinstance(value, bool) else ""
    return f"; write it in quotes: '{_show(value)}'{note}"


def _as_number(value: object, loc: Sequence[int | str], root: type[Model], *, whole: bool) -> str:
    limits = _limits(loc, root)
    read = meant.number(value, whole=whole)
    if read is None and whole and isinstance(value, float):
        read = round(value)
    if read is None:
        return _nearest_option(value, loc, root)
    if not _within(read, limits):
        return _inside(read, loc, root)
    return f"; write {str(value).strip()} without quotes" if _is_quoted_number(value) else f"; write {read}"


def _within(value: float, limits: dict[str, Any]) -> bool:
    return (
        value >= limits.get("ge", value)
        and value <= limits.get("le", value)
        and not value <= limits.get("gt", value - 1)
        and not value >= limits.get("lt", value + 1)
    )


_PYTHON_FILE = re.compile(r"[\w./ -]+\.py")


def _as_object(value: object, loc: Sequence[int | str], root: type[Model]) -> str:
    """Return advice on what to write in place of ``value``, because the field at ``loc`` needs an object.

    For example, if ``value`` is the text ``Qwen/Qwen2.5-7B``, advise ``{name: Qwen/Qwen2.5-7B}``. Return ""
    if the object's class is not known.
    """
    info = _field(loc, root)
    model = meant.model_in(info.annotation) if info is not None else None
    if model is None:
        return ""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        return _as_object(value[0], loc, root)
    if isinstance(value, list):
        return "; remove the dash before its fields"
    if not model.model_fields:
        return f"; write {loc[-1]}: {{}}"
    if loc[-1] == "python" and isinstance(value, str) and _PYTHON_FILE.fullmatch(value):
        return f"; write {{file: {value}}}"
    fields = {each.alias or name: each for name, each in model.model_fields.items()}
    required = {name for name, each in fields.items() if each.is_required()}
    fitting = [
        name
        for name, each in fields.items()
        if isinstance(value, str) and str in _types(each.annotation)
        if required <= {name} and _has_form(value, _constraint(each, "pattern"))
        # Nearly every text has the form of an object's name. So optional fields of this form are left out.
        if name in required or _constraint(each, "pattern") != LABEL.pattern
    ]
    if fitting:
        return f"; write {{{fitting[0]}: {value}}}"
    for name, each in fields.items():
        form = FORMS.get(_constraint(each, "pattern"))
        if isinstance(value, str) and required <= {name} and form and (written := form.proposal(value)):
            return f"; write {{{name}: {written}}}"
    said = f"; its fields are {_fields_of(model)}"
    shown = _example(loc, root)
    return said + (shown if shown.startswith("; write") else "")


def _types(annotation: Any) -> tuple[Any, ...]:
    return (annotation, *getattr(annotation, "__args__", ()))


def _has_form(value: str, pattern: str) -> bool:
    form = FORMS.get(pattern)
    return form is None or form.has(value)


def _constraint(info: FieldInfo, name: str) -> str:
    """Return one of pydantic's constraints of a field as text, such as "10" for the name ``max_length``.

    Return "" if the field has no constraint of this name.
    """
    found = [value for each in info.metadata if (value := getattr(each, name, None)) is not None]
    return str(found[0]) if found else ""


def _show(value: object) -> str:
    if isinstance(value, dict):
        return f"an object ({', '.join(map(str, list(value)[:4]))})" if value else "an empty object"
    text = (
        repr(value)
        if isinstance(value, str)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )
    return text if len(text) <= 80 else text[:77] + "..."


def _is_quoted_number(value: object) -> bool:
    try:
        return isinstance(value, str) and float(value) == float(value)
    except ValueError:
        return False


def _parent(loc: Sequence[int | str], root: type[Model]) -> tuple[type[Model] | None, str]:
    """Return the pydantic class and the path of the object that directly contains the field at ``loc``.

    ``loc`` is a location in pydantic's form, such as ``("spec", "graders", 0, "name")``. The class is None if
    ``root`` has no such object.
    """
    model: type[Model] | None = root
    for part in loc[:-1]:
        if isinstance(part, int) or model is None:
            continue
        info = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        model = meant.model_in(info.annotation) if info is not None else None
    return model, join_path(loc[:-1])


def _field(loc: Sequence[int | str], root: type[Model]) -> FieldInfo | None:
    """Return pydantic's description of the field at ``loc``, such as ``("spec", "graders", 0, "name")``.

    For the location of a list item, return that of the list. Return None if ``root`` has no such field.
    """
    named = [part for part in loc if not isinstance(part, int)]
    model, _ = _parent(named, root) if named else (None, "")
    if model is None:
        return None
    return next((f for n, f in model.model_fields.items() if named[-1] in (n, f.alias)), None)


_LIMITS = ("ge", "gt", "le", "lt", "max_length")


def _limits(loc: Sequence[int | str], root: type[Model]) -> dict[str, Any]:
    """Return the range and the maximum length of the field at ``loc``, such as ``("spec", "graders")``.

    The keys are pydantic's names: ``ge``, ``gt``, ``le``, ``lt`` and ``max_length``. A limit that the field
    does not have is left out. Return an empty dict for an item of a list.
    """
    info = _field(loc, root) if loc and not isinstance(loc[-1], int) else None
    return {
        name: value
        for constraint in (info.metadata if info is not None else ())
        for name in _LIMITS
        if (value := getattr(constraint, name, None)) is not None
    }


def bounds_text(limits: dict[str, float]) -> str:
    """Return the range of a number in words: ``0 to 100`` for ``{"ge": 0, "le": 100}``, for example.

    The keys are pydantic's names: ``ge``, ``gt``, ``le`` and ``lt``. Return "" if there are none.
    """
    if "ge" in limits and "le" in limits:
        return f"{_number(limits['ge'])} to {_number(limits['le'])}"
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return " and ".join(f"{word} {_number(limits[key])}" for key, word in words.items() if key in limits)


def _number(value: float) -> str:
    """Return a number as text for a manifest. A whole number is written with all its digits, without an
    exponent.
    """
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else f"{value:g}"


_READ_AS_BOOLEAN = {"false": ("n", "n, no and off"), "true": ("y", "y, yes and on")}


def _suggestion(loc: Sequence[int | str], root: type[Model]) -> str:
    """Return advice for the unknown field at ``loc``, for the end of a message.

    The advice names the field that the user probably meant, in the same object or in another part of the
    manifest. If no field is similar, the advice lists the fields of the object. If another program has the
    unknown field, and an RFTJob has no such field, the advice says what to do instead.
    """
    wrong = str(loc[-1])
    model, path = _parent(loc, root)
    names = [f.alias or n for n, f in model.model_fields.items()] if model is not None else []
    read, words = _READ_AS_BOOLEAN.get(wrong, (wrong, ""))
    found = meant.field(read, names, path, meant.all_paths(root, ""), foreign.path_of(read))
    is_a_field = meant.fold(found.rsplit(".", 1)[-1]) == meant.fold(read)
    if not is_a_field and not foreign.path_of(read) and (said := foreign.why_none(read)):
        return f"; {said}"
    advice = f"; did you mean {found}?" if found else f"; the fields here are {', '.join(names)}"
    note = f"; YAML reads the keys {words} without quotes as {wrong}" if words else ""
    return note + (advice if names or found else "")
