"""Parses JSON that another program of this project has written, perhaps in another release.

Operator, trainer, grader container and ``rft`` may be of different releases: during an upgrade, after a
rollback, or when a run is resumed. So this module ignores fields that this release does not know. Manifests
of users are parsed by ``rft_api.validation``, which refuses unknown fields.

A new field needs a default, because older releases do not write it. A change that an older release must not
ignore needs a higher ``version`` in the pydantic class. Then the older release refuses the whole JSON text.
"""

from typing import TypeVar

from rft_api.base import Model

M = TypeVar("M", bound=Model)


def read(model: type[M], text: str | bytes) -> M:
    """Parse JSON text into an object of the pydantic class ``model``. Ignore fields that the class does not
    know, because another release may have written the text.

    Raises pydantic's ValidationError if the text is not JSON, or not valid for the class.
    """
    return model.model_validate_json(text, by_alias=True, by_name=False, extra="ignore")


def read_object(model: type[M], value: object) -> M:
    """Validate ``value``, a parsed JSON object, and return it as an object of the pydantic class ``model``.
    Ignore fields that the class does not know, because another release may have written the JSON.

    Raises pydantic's ValidationError if the JSON object is not valid for the class.
    """
    return model.model_validate(value, by_alias=True, by_name=False, extra="ignore")
