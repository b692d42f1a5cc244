"""Problems of a manifest, as messages that tell the user what to change."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rft_api.base import Model


class Problem(NamedTuple):
    """One problem of a manifest."""

    path: str
    """Field in the manifest, e.g. ``spec.sampling.topK``."""
    message: str
    """The value, what is allowed, and the fix."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class InvalidManifest(ValueError):
    """A manifest that is not valid; ``problems`` lists all its problems."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)


def from_validation_error(error: ValidationError, root: type[Model]) -> list[Problem]:
    """Translate pydantic's errors into problems that name field, value, range and fix."""
    return [
        Problem(join_path(_loc(detail)), _message(detail, root)) for detail in error.errors(include_url=False)
    ]


def _loc(detail: ErrorDetails) -> tuple[int | str, ...]:
    """Return the location of the field. Errors for null and duplicates have the location of its parent."""
    inside = {"null_value": "field", "duplicate_item": "index"}.get(detail["type"])
    return (*detail["loc"], detail["ctx"][inside]) if inside is not None else detail["loc"]


def join_path(loc: Iterable[int | str]) -> str:
    """Return ``spec.graders[0].name`` for ``("spec", "graders", 0, "name")``."""
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


def _message(detail: ErrorDetails, root: type[Model]) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "missing":
        return "is required"
    if kind == "null_value":
        return "is null; give it a value or remove the line"
    if kind == "extra_forbidden":
        return f"no such field{_suggestion(detail['loc'], root)}"
    if kind == "duplicate_item":
        first = join_path((*detail["loc"], context["first"]))
        return f"{context['value']!r} is also the {context['key']} of {first}; give each its own"
    if kind == "literal_error":
        return f"{_show(value)} is not one of {_options(context)}{_meant(value, context)}"
    bounds = _bounds(detail["loc"], root)
    if kind in _TYPE_NAMES:
        hint = _quotes(value, kind)
        allowed = f" {bounds}" if bounds else ""
        return f"{_show(value)} is not {_TYPE_NAMES[kind]}{allowed}{hint}"
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return f"{_show(value)} is out of range; allowed is {bounds}"
    if kind == "string_pattern_mismatch":
        return f"{_show(value)} does not match {context.get('pattern')}"
    return f"{_show(value)}: {detail['msg']}"


def _options(context: dict[str, Any]) -> str:
    return str(context.get("expected", "")).replace(" or ", ", ")


def _meant(value: object, context: dict[str, Any]) -> str:
    """Return the allowed value that was probably meant: the number without quotes, or a similar text."""
    options = [option.strip() for option in _options(context).split(",")]
    if _is_quoted_number(value) and str(value) in options:
        return f"; write {value} without quotes"
    texts = {_fold(option.strip("'")): option for option in options}
    close = difflib.get_close_matches(_fold(str(value)), texts, 1) if isinstance(value, str) else []
    return f"; did you mean {texts[close[0]]}?" if close else ""


def _quotes(value: object, kind: str) -> str:
    """Return advice to add or remove quotes in the YAML, or an empty text."""
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        return f"; write it in quotes: '{_show(value)}'"
    numeric = kind.startswith(("int_", "float_")) and _is_quoted_number(value)
    boolean = kind == "bool_type" and value in ("true", "false")
    return f"; write {value} without quotes" if numeric or boolean else ""


def _show(value: object) -> str:
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
    """Return the model that holds the field at ``loc`` and the dotted path to it."""
    model: type[Model] | None = root
    for part in loc[:-1]:
        if isinstance(part, int) or model is None:
            continue
        info = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        model = _model_in(info.annotation) if info is not None else None
    return model, join_path(loc[:-1])


def _model_in(annotation: Any) -> type[Model] | None:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None


def _bounds(loc: Sequence[int | str], root: type[Model]) -> str:
    """Return the range of the field at ``loc``, such as ``1 to 10`` or ``above 0``; empty without bounds."""
    model, _ = _parent(loc, root)
    if model is None:
        return ""
    info = next((f for n, f in model.model_fields.items() if loc[-1] in (n, f.alias)), None)
    if info is None:
        return ""
    return bounds_text(
        {
            name: value
            for constraint in info.metadata
            for name in ("ge", "gt", "le", "lt")
            if (value := getattr(constraint, name, None)) is not None
        }
    )


def bounds_text(limits: dict[str, float]) -> str:
    """Return a range in words: ``{"ge": 0, "le": 100}`` is ``0 to 100``."""
    if "ge" in limits and "le" in limits:
        return f"{limits['ge']:g} to {limits['le']:g}"
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return " and ".join(f"{word} {limits[key]:g}" for key, word in words.items() if key in limits)


def _suggestion(loc: Sequence[int | str], root: type[Model]) -> str:
    """Return advice with the field that was probably meant, here or elsewhere in the spec."""
    wrong = str(loc[-1])
    model, path = _parent(loc, root)
    names = [f.alias or n for n, f in model.model_fields.items()] if model is not None else []
    key = _fold(wrong)
    here = [f"{path}.{name}" if path else name for name in names if _fold(name) == key]
    elsewhere = [p for p in _all_paths(root, "") if _fold(p.rsplit(".", 1)[-1]) == key]
    close = [f"{path}.{name}" if path else name for name in difflib.get_close_matches(wrong, names, 1)]
    found = [*here, *elsewhere, *close]
    return f"; did you mean {found[0]}?" if found else ""


def _fold(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _all_paths(model: type[Model], prefix: str) -> Iterable[str]:
    for name, info in model.model_fields.items():
        path = f"{prefix}.{info.alias or name}" if prefix else (info.alias or name)
        yield path
        nested = _model_in(info.annotation)
        if nested is not None:
            yield from _all_paths(nested, path)
