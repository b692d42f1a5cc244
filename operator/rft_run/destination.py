"""Reads and shows the destinations of an adapter: a repository of the hub, or a folder of a bucket."""

from typing import NamedTuple

from rft_api.forms import HUB_BRANCH, HUB_REPOSITORY, S3_FOLDER, Form
from rft_api.lifecycle import ResultTarget

MAIN = "main"
"""The branch that every repository of the hub has."""

PUSH_TOKEN = "RFT_PUSH_TOKEN"
"""Name of the environment variable with the token from the Secret that ``spec.output.hub.secretRef`` names.
Without this variable, huggingface_hub uses HF_TOKEN or the user's login."""


class HubDestination(NamedTuple):
    """A branch of a repository of the hub."""

    repository: str
    revision: str = MAIN
    private: bool = True
    """True: the repository must be private, and is created as a private one if it does not exist. False: the
    repository may be public, and is created as a public one."""

    def __str__(self) -> str:
        return f"hf://{self.repository}" + ("" if self.revision == MAIN else f"@{self.revision}")


class S3Destination(NamedTuple):
    """A folder of a bucket: the objects whose keys begin with a prefix."""

    uri: str

    def __str__(self) -> str:
        return self.uri


Destination = HubDestination | S3Destination


def destination_of(output: ResultTarget) -> Destination | None:
    """Return the destination that ``spec.output`` names, or None if it names none."""
    if output.hub is not None:
        return HubDestination(output.hub.repository, output.hub.revision or MAIN, output.hub.private)
    return S3Destination(output.s3.uri) if output.s3 is not None else None


def read_destination(text: str, *, private: bool = True) -> Destination:
    """Return the destination that ``text`` names: ``hf://OWNER/NAME[@REVISION]`` or ``s3://BUCKET/PREFIX``.

    ``private`` applies to a repository of the hub. Raises ValueError, with the corrected value if it can be
    guessed.
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
    """Return ``part``, a part of the destination ``text``. Raise ValueError if it does not have ``form``.
    The error has a corrected value: ``before``, then a correction of ``part``, then ``after``. It has
    ``example`` if no correction can be guessed.
    """
    if form.has(part):
        return part
    guess = form.proposal(part)
    meant = f"{before}{guess}{after}" if guess else f"for instance {example}"
    raise ValueError(f"{text!r}: {part!r} is not {form.words}; write {meant}")
