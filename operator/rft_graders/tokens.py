"""Reads the bearer tokens with which graders of kind http and model call their servers. The tokens never
reach messages, logs or other processes.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from rft_api.graders import Grader
from rft_api.sources import SecretKeyRef
from rft_run.config import SECRETS_DIR
from rft_run.errors import ConfigurationError

_HEADER_SAFE = re.compile(r"[\x21-\x7e]+")

ReadToken = Callable[[], str | None]
"""A function that returns a grader's bearer token, or None for a grader without a token. It is called again
for each batch of requests, because a mounted Secret may change.
"""


def environment_variable(grader: str, key: str) -> str:
    """Return the name of the environment variable that has a grader's token if no Secret is mounted.

    ``grader``: the name of the grader. ``key``: the key of the token in the Secret.
    """
    return "RFT_SECRET_" + re.sub(r"[^A-Z0-9]", "_", f"{grader}_{key}".upper())


def token_reader(
    grader: Grader,
    folder: str = SECRETS_DIR,
    environment: Mapping[str, str] = os.environ,
) -> ReadToken:
    """Return a function that reads a grader's bearer token, or returns None for a grader without a token.

    The token is read from the file ``<folder>/<grader>/<key>``. If this file cannot be read, it is read from
    the variable ``environment_variable(grader, key)``. Raises ConfigurationError, now and from the returned
    function, if the token is missing, or is not valid in an HTTP header.
    """
    kind = grader.http or grader.model
    ref = kind.secret_ref if kind is not None else None
    if ref is None:
        return lambda: None

    def read() -> str:
        return _read(grader.name, ref, Path(folder) / grader.name / ref.key, environment)

    read()
    return read


def _read(grader: str, ref: SecretKeyRef, path: Path, environment: Mapping[str, str]) -> str:
    variable = environment_variable(grader, ref.key)
    try:
        token, place = path.read_text(encoding="utf-8").strip(), str(path)
    except (OSError, UnicodeDecodeError):
        token, place = environment.get(variable, "").strip(), variable
    if not token:
        raise ConfigurationError(
            f"grader {grader}: secretRef names key {ref.key} of Secret {ref.name}, but the file {path} and"
            f" the environment variable {variable} are missing or empty; for a local run, set the variable"
        )
    if not _HEADER_SAFE.fullmatch(token):
        raise ConfigurationError(f"grader {grader}: {place} has white space or non-ASCII characters")
    return token


def hidden(text: str, token: str | None) -> str:
    """Return ``text`` with the token replaced by [token]. Servers may repeat the token in error messages.

    None: there is no token, and ``text`` is returned unchanged.
    """
    return text.replace(token, "[token]") if token else text
