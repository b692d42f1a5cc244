"""Copies files to a folder of a bucket of S3, or of a server with the API of S3 (AWS_ENDPOINT_URL)."""

import shutil
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from rft_run.destination import S3Destination
from rft_trainer.remote.sending import Pushed, PushError, is_temporary, opened, said, sha256

_DIGEST = "sha256"
"""The key of an object's metadata with the SHA-256 digest of its content, as hexadecimal digits."""
_BLOCK = 1 << 20
_TEMPORARY = ("OperationAborted", "RequestTimeout", "TemporaryRedirect")
"""S3 error codes of requests that may succeed later, although their HTTP status does not say so."""
_WITHOUT_CREDENTIALS = {
    "CredentialRetrievalError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "SSOError",
}
"""Names of botocore's error classes for credentials that it cannot find or cannot read."""
_OF_THE_TOKEN = ("InvalidToken", "ExpiredToken", "TokenRefreshRequired")
"""S3 error codes of credentials that are not valid, or not valid any more."""
_OF_THE_REGION = (
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "InvalidRegion",
    "PermanentRedirect",
)
"""S3 error codes of requests that were sent to a wrong region."""
_PART = 64 << 20
"""Size in bytes of a part of a large object. An object has at most 10,000 parts, here 640 GB."""


def push_to_s3(folder: Path, to: S3Destination) -> Pushed:
    """Copy the files of a folder to an S3 bucket. Each file becomes an object below the prefix in ``to.uri``.

    A file is not sent again if its object has the same size and digest. ``adapter_config.json`` is sent last,
    so an incomplete copy lacks this file, or has that of an earlier push. Raises PushError if the copy fails.
    """
    prefix = to.uri.removeprefix("s3://")
    sent: list[str] = []
    kept: list[str] = []
    try:
        import s3fs  # type: ignore[import-untyped]

        system: Any = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
        with opened(folder) as files:
            there = {path.removeprefix(f"{prefix}/") for path in system.find(prefix)}
            for name, file in files.items():
                known = f"{prefix}/{name}" if name in there else None
                (kept if _sent(system, f"{prefix}/{name}", file, known) else sent).append(name)
    except PushError:
        raise
    except Exception as error:  # botocore's errors, and those that s3fs makes of them
        raise _error_of(to, error) from None
    return Pushed(to.uri, sent, kept, sorted(there - set(files)))


def _sent(system: Any, path: str, file: BufferedReader, known: str | None) -> bool:
    """Send a file to an S3 object, unless the object has the same content. Return True if nothing was sent.

    - ``system``: the file system of s3fs.
    - ``path``: bucket and key of the object. ``known``: the same if the object exists, else None.

    Raises PushError if the object does not have the file's size and digest afterwards.
    """
    digest, size = sha256(file), file.seek(0, 2)
    file.seek(0)
    if known is not None and _is_same(system, path, digest, size):
        return True
    stream = system.open(path, "wb", block_size=_PART, Metadata={_DIGEST: digest})
    try:
        shutil.copyfileobj(file, stream, _BLOCK)
        stream.close()
    except BaseException:
        # If the interpreter closed the stream, the bucket would get an object with only a part of the file.
        with suppress(Exception):
            stream.discard()
        stream.closed = True
        raise
    if not _is_same(system, path, digest, size):
        raise PushError(
            f"s3://{path}: has another size or digest than the file that was sent", temporary=True
        )
    return False


def _is_same(system: Any, path: str, digest: str, size: int) -> bool:
    return bool(system.info(path)["size"] == size and system.metadata(path).get(_DIGEST) == digest)


def _error_of(to: S3Destination, error: BaseException) -> PushError:
    """Return the PushError for ``error``, an exception that was raised when files were copied to ``to``.

    Its message says what was expected and what to change.
    """
    bucket = to.uri.removeprefix("s3://").partition("/")[0]
    if isinstance(error, ImportError):
        return PushError(f"{to}: {said(error)}: pip install 'rft-operator[remote-data]'")
    if isinstance(error, FileNotFoundError):
        return PushError(f"{to}: there is no bucket {bucket}; create it, or name one that exists")
    code, status = _answered(error)
    if code in _OF_THE_REGION:
        return PushError(
            f"{to}: {said(error)}; set AWS_DEFAULT_REGION to the region of the bucket {bucket}, in a job in"
            " spec.template.env"
        )
    if code in _OF_THE_TOKEN or _is_about_credentials(error):
        return PushError(
            f"{to}: {said(error)}; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and with"
            " temporary credentials AWS_SESSION_TOKEN; in a job set spec.template.serviceAccountName or"
            " spec.template.env"
        )
    if isinstance(error, PermissionError):
        return PushError(
            f"{to}: permission denied; expected are credentials that may read, list and write there:"
            " AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in a job"
            " spec.template.serviceAccountName or spec.template.env"
        )
    return PushError(
        f"{to}: the bucket did not accept the files: {said(error)}",
        temporary=_is_temporary(error, code, status),
    )


def _is_about_credentials(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & _WITHOUT_CREDENTIALS) or "credential" in said(error).lower()


def _answered(error: BaseException) -> tuple[str, int | None]:
    """Return the S3 error code and the HTTP status of the response that caused an error of s3fs.

    Without a response return "" and None. s3fs raises an OSError from the ClientError of botocore, which has
    the response.
    """
    response = getattr(error.__cause__, "response", None)
    if not isinstance(response, dict):
        return "", None
    code = response.get("Error", {}).get("Code", "")
    return str(code), response.get("ResponseMetadata", {}).get("HTTPStatusCode")


def _is_temporary(error: BaseException, code: str, status: int | None) -> bool:
    """Return whether a failed copy to S3 may succeed if it is repeated later.

    ``code``: the S3 error code, or "". ``status``: the HTTP status of the response, or None.
    """
    from botocore.exceptions import BotoCoreError, HTTPClientError  # type: ignore[import-untyped]
    from botocore.exceptions import ConnectionError as NoConnection

    if isinstance(error, (TimeoutError, ConnectionError, NoConnection, HTTPClientError)):
        return True
    if status is not None:
        return is_temporary(status) or code in _TEMPORARY or "Throttl" in code
    return not isinstance(error, (ValueError, BotoCoreError))
