"""The base class of all API models: camelCase in JSON, snake_case in Python, unknown fields are refused."""

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

_WHOLE_FLOATS = 2**53
"""From this number on, floats cannot represent every integer. The API server does not read them as integers.
"""


def _integral(value: object) -> object:
    """Convert a number as the API server does: ``8.0`` is 8; more than 64 bits are refused.

    Other values are returned unchanged, for strict validation.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE_FLOATS:
        return int(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise PydanticCustomError("int_64_bits", "Input should be a whole number of 64 bits")
    return value


Int = Annotated[int, BeforeValidator(_integral)]
"""A whole number of 64 bits; ``8.0`` is one, ``"8"`` and ``true`` are not."""

EMPTY_DEFAULT: dict[str, Any] = {"default": {}}
"""Schema extra for an object whose fields all have defaults. If it is absent, the API server adds it."""


def map_by(key: str) -> dict[str, Any]:
    """Return schema extras of a list that server-side apply merges by ``key``."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


Items = TypeVar("Items", bound=Sequence[Any])


def unique_by(key: str) -> AfterValidator:
    """Refuse two items with the same ``key``, as the API server does for lists of type map."""

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
    """Base of all API models.

    Strict, because the API server does not convert ``"8"`` to 8 either. Unknown fields are refused, because a
    misspelt field that is silently ignored costs GPU-hours.
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
        """Drop ``null`` where a default exists, as the API server does, and refuse it elsewhere.

        Elsewhere the API server silently drops it too, like an unknown field; but here it is refused, because
        the user probably forgot a value. Python names are exempt: code passes ``None`` for absent fields.
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
        """Return the JSON object: camelCase keys, without optional fields that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def known(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None, because the API's models refuse nulls as the API server does."""
    return {name: value for name, value in fields.items() if value is not None}
