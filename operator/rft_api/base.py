"""What every API model shares: camelCase on the wire, snake_case in Python, nothing unknown."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError


def _integral(value: object) -> object:
    """Read ``8.0`` as 8, as the API server does; leave everything else to strict validation."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


Int = Annotated[int, BeforeValidator(_integral)]
"""A whole number; ``8.0`` is one, ``"8"`` and ``true`` are not."""

EMPTY_DEFAULT: dict[str, Any] = {"default": {}}
"""Schema extra of an object whose absence means all its defaults: the API server then fills them in."""


def map_by(key: str) -> dict[str, Any]:
    """Schema extra of a list that server-side apply merges by ``key``."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


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
        """Drop ``null`` where a default exists and refuse it elsewhere.

        The API server does exactly that with fields that are not ``nullable``.
        """
        if not isinstance(data, dict):
            return data
        kept = {}
        for key, value in data.items():
            info = next((f for n, f in cls.model_fields.items() if key in (n, f.alias)), None)
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
