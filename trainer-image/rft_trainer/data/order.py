"""Computes a pseudo-random order of rows without storing it, with constant time and memory per row."""

import hashlib

_ROUNDS = 4


def permuted(index: int, count: int, key: str) -> int:
    """Return the image of ``index`` under a pseudo-random permutation, which ``key`` determines.

    ``index`` and the result are from 0 to ``count`` - 1, and each result occurs once. So ``index`` can count
    the places of a shuffled order, and the result is the row at this place.

    The function is a Feistel network of four rounds. It permutes the numbers below a power of four (Luby and
    Rackoff, How to Construct Pseudorandom Permutations from Pseudorandom Functions, 1988). The network is
    applied again until the result is below ``count`` (Black and Rogaway, Ciphers with Arbitrary Finite
    Domains, 2002). Raises IndexError for an ``index`` outside this range.
    """
    if not 0 <= index < count:
        raise IndexError(f"row {index} is not between 0 and {count - 1}")
    half = max(1, -(-(count - 1).bit_length() // 2))
    secret = hashlib.blake2b(key.encode(), digest_size=32).digest()
    value = _network(index, half, secret)
    while value >= count:
        value = _network(value, half, secret)
    return value


def _network(value: int, half: int, secret: bytes) -> int:
    """Apply a Feistel network to a number of 2 × ``half`` bits. Return a number of the same length.

    ``secret``: the key of the network's hash function.
    """
    mask = (1 << half) - 1
    left, right = value >> half, value & mask
    for number in range(_ROUNDS):
        said = number.to_bytes(1) + right.to_bytes(8)
        mixed = int.from_bytes(hashlib.blake2b(said, key=secret, digest_size=8).digest())
        left, right = right, left ^ (mixed & mask)
    return left << half | right
