"""Defines the base class of the records that a run writes into files as JSON, with camelCase field names."""

import json
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from rft_run import run_files

Whole = Annotated[int, Field(ge=-run_files.MOST, le=run_files.MOST)]
"""The type of a whole number in a record: a signed integer of 64 bits. JSON allows larger numbers, but
many programs fail to read them."""


class Record(BaseModel):
    """Base class of a JSON object in a file of a run, such as the metrics of one step.

    Files may come from another release. So a record is unchanged when it is read and written again: unknown
    fields are kept, and no missing field is added.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="allow", frozen=True, allow_inf_nan=False
    )

    def dump(self) -> dict[str, Any]:
        """Return the record as a JSON object with camelCase names. Fields that were never set are left out.
        Fields that were set to None are kept as null.
        """
        return self.model_dump(by_alias=True, exclude_unset=True)

    def as_line(self) -> str:
        """Return the record as one line of JSON, with its newline. Raises ValueError for a number that is not
        finite.
        """
        return json.dumps(self.dump(), separators=(",", ":"), allow_nan=False) + "\n"

    @classmethod
    def from_line(cls, line: str | bytes) -> Self:
        """Parse a record from a line of JSON. Raises ValueError, of which pydantic's ValidationError is a
        subclass, if the line is invalid or has too many values.
        """
        run_files.refuse_too_many_values(line if isinstance(line, bytes) else line.encode())
        return cls.model_validate_json(line)
