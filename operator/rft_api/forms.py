"""The forms that texts in fields of an RFTJob must have, such as a name, a path or a size.

Each form has a regular expression, a description in words, and a function that guesses a correction. Messages
never show the regular expression. They show the words, and the corrected text if it can be guessed.
"""

import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple


def _nothing(_text: str) -> str:
    return ""


class Form(NamedTuple):
    """A form that texts of fields must have, such as that of a name, a path or a size.

    An instance can check a text, describe the form in messages, and correct a text.
    """

    pattern: str
    """The form as a regular expression, in the syntax that JSON Schema, Go and pydantic share."""
    words: str
    """The form in words, such as "a size such as 20Gi". Messages put these words after "is not"."""
    correct: Callable[[str], str] = _nothing
    """A function that guesses which text the user meant. The guess may not have the form."""
    longest: int = 4096
    """Maximum number of characters. The API server uses it to estimate the cost of a CEL rule."""

    def limits(self, longest: int | None = None) -> dict[str, Any]:
        """Return keyword arguments for pydantic's ``Field``, so that the field's text must have this form.

        ``longest`` is the maximum number of characters. If it is None, the form's own maximum is used.
        """
        return {"pattern": self.pattern, "max_length": longest or self.longest}

    def has(self, text: str) -> bool:
        """Return whether ``text`` has the form."""
        pattern = re.sub(r"\$$", r"\\Z", self.pattern)  # Python's $ also matches before a last newline
        return re.search(pattern, text, re.ASCII) is not None

    def proposal(self, text: str, longest: int | None = None) -> str:
        """Return a correction of ``text`` that has this form. Return "" if no correction can be guessed.

        If ``longest`` is given, the correction has at most this many characters.
        """
        guess = self.correct(unicodedata.normalize("NFKC", text).strip())
        guess = guess[:longest].rstrip("-") if longest is not None else guess
        return guess if guess != text and self.has(guess) else ""


def _as_label(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def _as_identifier(text: str) -> str:
    called = re.fullmatch(r"(?:.*:)?\s*(?:def\s+)?(\w+)\s*(?:\(.*\))?:?", text, re.ASCII)
    name = called[1] if called else "" if "." in text else re.sub(r"\W+", "_", text, flags=re.ASCII)
    return f"_{name}" if name[:1].isdigit() else name


def _as_address(text: str) -> str:
    found = re.fullmatch(r"(https?):/*(.+)", text, re.IGNORECASE)
    if found:
        return f"{found[1].lower()}://{found[2]}"
    if "://" in text or not re.match(r"[\w.-]+(:\d+)?(/|$)", text, re.ASCII):
        return ""
    is_local = re.match(r"localhost|127\.|[\w-]+:\d|[^/]*\.(svc|local)\b", text)
    return f"{'http' if is_local else 'https'}://{text}"


def _as_absolute_path(text: str) -> str:
    return "" if re.match(r"~|[A-Za-z]:", text) else "/" + text.removeprefix("./").strip("/")


def _as_relative_path(text: str) -> str:
    return text.splitlines()[0].lstrip("/") if text else ""


def _as_uri(text: str) -> str:
    found = re.fullmatch(r"(s3|gs|hf|https?|file):/*(.+)", text, re.IGNORECASE)
    if found:
        return f"{found[1].lower()}://{found[2]}"
    if drive := re.fullmatch(r"[A-Za-z]:\\(?:.*\\)?([^\\]+)", text):
        return f"./{drive[1]}"
    if re.match(r"~|\$", text) or "://" in text or not text.strip("./"):
        return ""
    return "./" + text.replace("\\", "/")


_UNITS = {"": "", "k": "Ki", "m": "Mi", "g": "Gi", "t": "Ti"}


def _number(text: str) -> str:
    """Return the number that a user wrote as ``text``, in the syntax of Kubernetes quantities.

    For example, ``1,5`` becomes ``1.5``, and ``1_000`` becomes ``1000``. Return "" if ``text`` is no number.
    """
    digits = text.replace(",", ".") if re.fullmatch(r"\d+,\d{1,2}", text) else re.sub("[,_ ]", "", text)
    if re.fullmatch(r"\d+(\.\d*)?[eE]\+?\d{1,2}", digits):
        digits = f"{float(digits):.0f}"
    digits = f"0{digits}" if digits.startswith(".") else digits.removesuffix(".")
    return digits if re.fullmatch(r"\d+(\.\d+)?", digits) else ""


def _as_size(text: str) -> str:
    found = re.fullmatch(
        r"([\d.,_ ]*\d[\d.,_]*(?:[eE]\+?\d+)?)\s*([kmgt]?)(?:i?b|i|[a-z]{4,}bytes?)?", text, re.I
    )
    return _number(found[1].strip()) + _UNITS[found[2].lower()] if found and _number(found[1].strip()) else ""


def _as_quantity(text: str) -> str:
    cores = re.fullmatch(r"([\d.,]+)\s*(?:v?cpus?|cores?|c)", text, re.IGNORECASE)
    return _number(cores[1]) if cores else _as_size(text)


_COUNT_UNITS = {"million": "M", "billion": "B", "trillion": "T", "": "B"}


def _as_count(text: str) -> str:
    found = re.fullmatch(r"([\d.,_]+)\s*([mbt]|million|billion|trillion|)", text, re.IGNORECASE)
    if not found or not (digits := _number(found[1])):
        return ""
    if not found[2] and float(digits) >= 1e6:
        unit = "B" if float(digits) >= 1e9 else "M"
        return f"{float(digits) / (1e9 if unit == 'B' else 1e6):.10g}{unit}"
    return digits + _COUNT_UNITS.get(found[2].lower(), found[2].upper())


def _as_moment(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return ""
    in_utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return in_utc.strftime("%Y-%m-%dT%H:%M:%SZ")


def _as_repository(text: str) -> str:
    found = re.fullmatch(r"(?:hf:/*|https?://[^/]+/)?(?:models/)?([^/]+)/([^/]+)/?", text.strip())
    if not found:
        return ""
    return "/".join(
        re.sub(r"[^\w.]+|-{2,}|\.{2,}", "-", part, flags=re.ASCII).strip("-.") for part in found.groups()
    )


def _as_branch(text: str) -> str:
    return re.sub(r"[^\w./-]+", "-", text.removeprefix("refs/heads/"), flags=re.ASCII).strip("-./")


def _as_s3_folder(text: str) -> str:
    found = re.fullmatch(r"(?:s3a?:)?/*([^/]+)/+(.+)", text, re.IGNORECASE)
    if not found:
        return ""
    parts = [re.sub(r"[^\w.=+@-]+", "-", part, flags=re.ASCII) for part in found[2].split("/")]
    return f"s3://{found[1].lower().replace('_', '-')}/{'/'.join(part for part in parts if part.strip('.'))}"


LABEL = Form(
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    "a name of lowercase letters, digits and dashes that begins and ends with a letter or digit",
    _as_label,
    63,
)
IDENTIFIER = Form(
    r"^[A-Za-z_][A-Za-z0-9_]*$",
    "a name of letters, digits and underscores that does not begin with a digit",
    _as_identifier,
    256,
)
ADDRESS = Form(r"^https?://.+", "an address that begins with http:// or https://", _as_address)
ABSOLUTE_PATH = Form(r"^/.+", "an absolute path below /, such as /data", _as_absolute_path)
RELATIVE_PATH = Form(
    r"^[^/].*$", "a path inside the volume, in one line and without a leading slash", _as_relative_path
)
URI = Form(
    r"^([a-z0-9]+://|[./]).+",
    "a URI (s3://, gs://, https://, hf://, file://) or a path that begins with ./ or /",
    _as_uri,
)
SIZE = Form(
    r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$",
    "a size such as 20Gi: a number and, without a space, Ki, Mi, Gi, Ti, k, M, G or T",
    _as_size,
    32,
)
QUANTITY = Form(
    r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti|k|M|G|T)?$",
    "a quantity such as 4, 500m (thousandths) or 16Gi: a number and, without a space, its unit",
    _as_quantity,
    32,
)
COUNT = Form(r"^[0-9]+(\.[0-9]+)?[MBT]$", "a count such as 135M, 7B or 1.5T", _as_count, 16)
FIELD_PATH = Form(
    r"^(metadata\.(name|namespace|uid|(labels|annotations)\['[^']+'\])"
    r"|spec\.(nodeName|serviceAccountName)|status\.(hostIPs?|podIPs?))$",
    "a field of the pod: metadata.name, metadata.namespace, metadata.uid, metadata.labels['KEY'],"
    " metadata.annotations['KEY'], spec.nodeName, spec.serviceAccountName, status.hostIP, status.hostIPs,"
    " status.podIP or status.podIPs",
)
MOMENT = Form(
    r"^2[0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$",
    "a moment in UTC such as 2027-01-31T18:00:00Z",
    _as_moment,
    20,
)
HUB_REPOSITORY = Form(
    r"^[A-Za-z0-9_]+([.-][A-Za-z0-9_]+)*/[A-Za-z0-9_]+([.-][A-Za-z0-9_]+)*$",
    "a repository of the hub such as my-team/my-adapter: OWNER/NAME of letters, digits, underscores, and"
    " single dashes and dots between them",
    _as_repository,
    193,
)
HUB_BRANCH = Form(
    r"^[A-Za-z0-9_]+([./-]+[A-Za-z0-9_]+)*$",
    "a branch such as main: letters, digits and underscores, with dashes, dots and slashes between them",
    _as_branch,
    128,
)
S3_FOLDER = Form(
    r"^s3://[a-z0-9][a-z0-9.-]+[a-z0-9](/[A-Za-z0-9_=+@-][A-Za-z0-9._=+@-]*)+$",
    "a folder of a bucket such as s3://my-bucket/adapters/my-job, with a bucket and a prefix",
    _as_s3_folder,
    1024,
)

FORMS = {
    form.pattern: form
    for form in (
        LABEL, IDENTIFIER, ADDRESS, ABSOLUTE_PATH, RELATIVE_PATH, URI, SIZE, QUANTITY, COUNT, FIELD_PATH,
        MOMENT, HUB_REPOSITORY, HUB_BRANCH, S3_FOLDER,
    )
}  # fmt: skip
"""Every form that the API uses, by its regular expression."""
