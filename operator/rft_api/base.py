"""The base class of all pydantic classes of an RFTJob, and helpers for their fields.

Fields are camelCase in JSON and snake_case in Python. Unknown fields are refused.
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
    """Convert a float such as ``8.0`` to the integer 8, as the API server does.

    Return any other value unchanged. Strict validation then refuses values such as ``8.5`` and ``"8"``.
    Raise PydanticCustomError for an integer that does not fit into 64 bits.
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
    """Return extra keywords for the JSON schema of a list whose items are identified by the field ``key``.

    With these keywords, server-side apply merges two items that have the same value in this field.
    """
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


Items = TypeVar("Items", bound=Sequence[Any])


def unique_by(key: str) -> AfterValidator:
    """Return a pydantic validator that refuses a list if two items have the same value in the field ``key``.

    The API server also refuses such a list, if ``x-kubernetes-list-type`` is ``map`` in its schema.
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
    """Base class of all pydantic classes for parts of an RFTJob.

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
        """Return the fields in ``data`` without each ``null`` whose field has a default other than None.

        Raise PydanticCustomError for a ``null`` of any other field, because the user probably forgot a value.
        The API server would remove every ``null``, and use the default if there is one.

        Fields in ``data`` may also have Python names. A Python name that differs from the JSON name, such as
        ``top_k``, may have the value ``None``, because code passes ``None`` for absent fields.
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
    """Return the keyword arguments in ``fields`` without those that are None.

    Pass the result to the constructor of a subclass of ``Model``, which refuses None for some fields: those
    with the default None whose names in Python and in JSON are equal, such as ``inline``.
    """
    return {name: value for name, value in fields.items() if value is not None}
