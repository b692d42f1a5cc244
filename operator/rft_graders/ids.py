"""Makes request ids that nobody can guess, and recognizes these ids later without a list of them."""

import hashlib
import secrets


class RequestIds:
    """Makes an id for each request: a number and its keyed hash. The key never leaves this process, so no
    other process can make a valid id.
    """

    def __init__(self) -> None:
        """Choose a random key for the hashes. So this object recognizes only ids that it has made itself."""
        self._key = secrets.token_bytes(32)
        self._count = 0

    def next(self) -> str:
        """Return a new id. No two calls return the same id."""
        self._count += 1
        return self._made(self._count)

    def was_given(self, value: object) -> bool:
        """Return whether a value from another process is an id that ``next`` has returned before."""
        if not isinstance(value, str):
            return False
        number = value.partition("-")[0]
        if not (number.isascii() and number.isdigit() and len(number) <= len(str(self._count))):
            return False
        return 0 < int(number) <= self._count and value == self._made(int(number))

    def _made(self, number: int) -> str:
        digest = hashlib.blake2b(str(number).encode(), key=self._key, digest_size=16).hexdigest()
        return f"{number}-{digest}"


def slot_name(name: str, slot: int) -> str:
    """Return the name by which a request addresses one worker process of the environment ``name``.

    Each rollout is played in one worker process, its slot. The slots are numbered from 0.
    """
    return f"{name}/{slot}"
