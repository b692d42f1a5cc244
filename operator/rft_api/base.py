"""The base class of all pydantic classes of the API. Fields are camelCase in JSON and snake_case in Python.
Unknown fields are refused.
"""

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

_WHOLE_FLOATS = 2**53
"""Integers below this number are exact as floats. The API server converts only floats below this number, such
as ``8.0``, to integers.
"""


def _integral(value: object) -> object:
    """Convert a number as the API server does: ``8.0`` becomes 8. A number of more than 64 bits is refused.

    A value that is not a whole number, such as ``8.5`` or ``"8"``, is returned unchanged. Strict validation
    then refuses it.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE_FLOATS:
        return int(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise PydanticCustomError("int_64_bits", "Input should be a whole number of 64 bits")
    return value


Int = Annotated[int, BeforeValidator(_integral)]
"""An integer of 64 bits. ``8.0`` is accepted; ``"8"`` and ``true`` are refused."""

EMPTY_DEFAULT: dict[str, Any] = {"default": {}}
"""Extra keywords for the JSON schema of an object whose fields all have defaults.

If a manifest does not have the object, the API server adds it with these defaults.
"""

DATE_TIME: dict[str, Any] = {"format": "date-time"}
"""Extra keywords for the JSON schema of a time in RFC 3339. With them the API server checks the form of the
time.
"""


def map_by(key: str) -> dict[str, Any]:
    """Return the extra keywords for the JSON schema of a list. With them, server-side apply merges items with
    the same value of the field ``key``.
    """
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


Items = TypeVar("Items", bound=Sequence[Any])


def unique_by(key: str) -> AfterValidator:
    """Return a validator that refuses a list if two items have the same value in the field ``key``.

    The API server also refuses such a list, if the list has the type ``map`` in the schema.
    """

    def check(items: Items) -> Items:
        seen: dict[str, int] = {}
        for index, item in enumerate(items):
            value = getattr(item, key)
            if value in seen:
                context = {"index": index, "key": key, "value": value, "first": seen[value]}
                raise PydanticCustomError("duplicate_item", "the same {key} as item {first}", context)
            seen[value] = index
        return items

    return AfterValidator(check)


class Model(BaseModel):
    """Base class of all pydantic classes of the API.

    Validation is strict, because the API server does not convert ``"8"`` to 8 either. Unknown fields are
    refused, because a misspelt field that is silently ignored costs GPU-hours.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _nulls_as_the_api_server_reads_them(cls, data: Any) -> Any:
        """Drop a ``null`` if the field has a default other than None. Otherwise refuse the ``null``.

        The API server also drops the ``null`` and uses the default. It even drops a ``null`` of a field
        without a default. Such a ``null`` is refused here, because the user probably forgot a value.

        A Python name that differs from the JSON name, such as ``top_k``, may have the value ``None``: code
        passes ``None`` for absent fields.
        """
        if not isinstance(data, dict):
            return data
        kept = {}
        for key, value in data.items():
            info = next((f for n, f in cls.model_fields.items() if key == (f.alias or n)), None)
            if value is None and info is not None:
                if info.is_required() or info.get_default(call_default_factory=False) is None:
                    raise PydanticCustomError(
                        "null_value",
                        "{field} is null; give it a value or remove the line",
                        {"field": key},
                    )
                continue
            kept[key] = value
        return kept

    def dump(self) -> dict[str, Any]:
        """Return this object as a JSON object: with camelCase keys, and without fields that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def known(**fields: Any) -> dict[str, Any]:
    """Return those of ``fields`` that are not None, as keyword arguments for a subclass of ``Model``.

    Without this function, the subclass could refuse a None.
    """
    return {name: value for name, value in fields.items() if value is not None}
