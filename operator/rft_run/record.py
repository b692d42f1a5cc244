"""The base class of the records that a run writes as JSON lines, with camelCase names."""

import json
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from rft_run import run_files

Whole = Annotated[int, Field(ge=-run_files.MOST, le=run_files.MOST)]
"""A whole number in a record, of 64 bits at most. JSON allows larger numbers, but programs fail with them."""


class Record(BaseModel):
    """A record of a run, such as the metrics of a step. It is stored in a file, which another release may
    read.

    A record does not change when it is read and written again: its unknown fields stay, and no missing field
    is added.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="allow", frozen=True, allow_inf_nan=False
    )

    def dump(self) -> dict[str, Any]:
        """Return the record as a JSON object. It contains all fields that were set, also those that were set
        to null.
        """
        return self.model_dump(by_alias=True, exclude_unset=True)

    def as_line(self) -> str:
        """Return the record as one line of JSON. Raises ValueError for a number that is not finite."""
        return json.dumps(self.dump(), separators=(",", ":"), allow_nan=False) + "\n"

    @classmethod
    def from_line(cls, line: str | bytes) -> Self:
        """Read a record from a line of JSON. Raises ValueError (pydantic's ValidationError) if it is
        invalid.
        """
        run_files.refuse_too_many_values(line if isinstance(line, bytes) else line.encode())
        return cls.model_validate_json(line)
