"""Reads JSON that another program of this project has written.

Operator, trainer, grader container and ``rft`` may be of different releases: during an upgrade, after a
rollback, or when a run is resumed. So this module ignores fields that this release does not know. A manifest
of a user is read strictly, by ``rft_api.validation``.

A new field needs a default, because older releases do not write it. A change that an older release must not
ignore needs a higher ``version`` in the pydantic class. Then the older release refuses the whole JSON text.
"""

from typing import TypeVar

from rft_api.base import Model

M = TypeVar("M", bound=Model)


def read(model: type[M], text: str | bytes) -> M:
    """Return an object of the pydantic class ``model`` from JSON text that another release may have written.

    Raises pydantic's ValidationError if the text is not JSON, or not valid for the class.
    """
    return model.model_validate_json(text, by_alias=True, by_name=False, extra="ignore")


def read_object(model: type[M], value: object) -> M:
    """Return an object of the pydantic class ``model`` from a parsed JSON object, which another release may
    have written.

    Raises pydantic's ValidationError if the JSON object is not valid for the class.
    """
    return model.model_validate(value, by_alias=True, by_name=False, extra="ignore")
