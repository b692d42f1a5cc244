"""Makes request ids that nobody can guess, and recognizes these ids later without a list of them."""

import hashlib
import secrets


class RequestIds:
    """Gives each request an id: a number and its keyed hash. The key never leaves this process."""

    def __init__(self) -> None:
        """Choose a random key. This object recognizes only its own ids."""
        self._key = secrets.token_bytes(32)
        self._count = 0

    def next(self) -> str:
        """Return a new id. No two calls return the same id."""
        self._count += 1
        return self._made(self._count)

    def was_given(self, value: object) -> bool:
        """Return whether a value from another process is an id that ``next`` has returned."""
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
    """Return the grader name with which a request addresses one slot (worker process) of an environment."""
    return f"{name}/{slot}"
