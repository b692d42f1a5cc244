"""Parses and formats the destinations to which a trained adapter is uploaded: a repository of the Hugging
Face Hub, or a folder of an S3 bucket.
"""

from typing import NamedTuple

from rft_api.forms import HUB_BRANCH, HUB_REPOSITORY, S3_FOLDER, Form
from rft_api.lifecycle import ResultTarget

MAIN = "main"
"""Name of the default branch of a repository of the hub."""

PUSH_TOKEN = "RFT_PUSH_TOKEN"
"""Name of the environment variable with the hub's token for the upload of an adapter. The token comes from
the Secret that ``spec.output.hub.secretRef`` names.

If the variable is not set, huggingface_hub uses HF_TOKEN or the user's login."""


class HubDestination(NamedTuple):
    """A branch of a repository of the hub, to which an adapter is uploaded."""

    repository: str
    revision: str = MAIN
    private: bool = True
    """True: the repository must be private, and is created as a private one if it does not exist. False: the
    repository may be public, and is created as a public one if it does not exist."""

    def __str__(self) -> str:
        return f"hf://{self.repository}" + ("" if self.revision == MAIN else f"@{self.revision}")


class S3Destination(NamedTuple):
    """A folder of an S3 bucket, to which an adapter is uploaded: the objects whose keys begin with a prefix.

    ``uri`` has the form ``s3://BUCKET/PREFIX``.
    """

    uri: str

    def __str__(self) -> str:
        return self.uri


Destination = HubDestination | S3Destination


def destination_of(output: ResultTarget) -> Destination | None:
    """Return the destination in ``output``, the ``spec.output`` of a job. Return None if it has neither
    ``hub`` nor ``s3``.
    """
    if output.hub is not None:
        return HubDestination(output.hub.repository, output.hub.revision or MAIN, output.hub.private)
    return S3Destination(output.s3.uri) if output.s3 is not None else None


def read_destination(text: str, *, private: bool = True) -> Destination:
    """Parse a destination from ``text``: ``hf://OWNER/NAME[@REVISION]`` or ``s3://BUCKET/PREFIX``.

    ``private`` says whether a repository of the hub must be private. Raises ValueError if the text has
    another form. The message proposes a corrected value if one can be guessed, else an example.
    """
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() == "s3":
        return S3Destination(_read(text.rstrip("/"), S3_FOLDER, text, "s3://my-bucket/my-adapter", ""))
    if separator and scheme.lower() == "hf":
        repository, marked, revision = rest.rstrip("/").partition("@")
        tail = f"@{revision}" if marked else ""
        name = _read(repository, HUB_REPOSITORY, text, "hf://my-name/my-adapter", "hf://", tail)
        branch = _read(revision, HUB_BRANCH, text, f"hf://{name}", f"hf://{name}@") if marked else MAIN
        return HubDestination(name, branch, private)
    meant = S3_FOLDER.proposal(text) if scheme.lower() in ("s3a", "s3n") else ""
    if not separator and HUB_REPOSITORY.has(text):
        meant = f"hf://{text}"
    raise ValueError(
        f"{text!r} names no destination; allowed are hf://OWNER/NAME, hf://OWNER/NAME@REVISION and"
        f" s3://BUCKET/PREFIX; write {meant or 'for instance hf://my-name/my-adapter'}"
    )


def _read(part: str, form: Form, text: str, example: str, before: str, after: str = "") -> str:
    """Return ``part``, a part of the destination ``text``. Raise ValueError if it does not have the form
    ``form``.

    The message proposes a corrected destination: ``before``, a correction of ``part``, and ``after``. If no
    correction can be guessed, the message has ``example`` instead.
    """
    if form.has(part):
        return part
    guess = form.proposal(part)
    meant = f"{before}{guess}{after}" if guess else f"for instance {example}"
    raise ValueError(f"{text!r}: {part!r} is not {form.words}; write {meant}")
