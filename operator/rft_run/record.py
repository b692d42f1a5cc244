"""Base of the records that a run writes as JSON: camelCase names, one line each."""

import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Record(BaseModel):
    """A record that is read again later, perhaps by another release.

    A record stays the same when it is read and written again. Fields that this release does not know are
    kept, and fields that the record did not have are not added.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="allow", frozen=True, allow_inf_nan=False
    )

    def dump(self) -> dict[str, Any]:
        """Return the JSON object, with the fields that were set, also those that are null."""
        return self.model_dump(by_alias=True, exclude_unset=True)

    def as_line(self) -> str:
        """Return the JSON object as a line. Raises ValueError for a number that is not finite."""
        return json.dumps(self.dump(), separators=(",", ":"), allow_nan=False) + "\n"

    @classmethod
    def from_line(cls, line: str | bytes) -> Self:
        """Read a record. Raises ValueError (pydantic's ValidationError) for anything else."""
        return cls.model_validate_json(line)
