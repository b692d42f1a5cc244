"""What every API model shares: camelCase on the wire, snake_case in Python, nothing unknown."""

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

_WHOLE_FLOATS = 2**53
"""From here on not every whole number is a float, and the API server takes floats for fractions."""


def _integral(value: object) -> object:
    """Read numbers as the API server does: ``8.0`` is 8, and what takes more than 64 bits is none.

    Everything else is left to strict validation.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE_FLOATS:
        return int(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise PydanticCustomError("int_64_bits", "Input should be a whole number of 64 bits")
    return value


Int = Annotated[int, BeforeValidator(_integral)]
"""A whole number of 64 bits; ``8.0`` is one, ``"8"`` and ``true`` are not."""

EMPTY_DEFAULT: dict[str, Any] = {"default": {}}
"""Schema extra of an object whose absence means all its defaults: the API server then fills them in."""


def map_by(key: str) -> dict[str, Any]:
    """Schema extra of a list that server-side apply merges by ``key``."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


Items = TypeVar("Items", bound=Sequence[Any])


def unique_by(key: str) -> AfterValidator:
    """Refuse two items of the same ``key``, as the API server does in a list that is a map."""

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

    Strict, because the API server does not turn ``"8"`` into 8 either, and closed, because a
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

        The API server drops it there too, without a word, like a field it does not know; but a value
        that somebody forgot is worth one. Python names are code's, which says ``None`` for absent.
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
        """Return the JSON form: camelCase keys, absent optionals left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
