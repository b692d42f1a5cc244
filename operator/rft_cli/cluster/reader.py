"""Lists the files of a run's folder, and sends their content. Runs inside of the pod of ``rft download``.

    python -c SOURCE list FOLDER [PATTERN…]     writes a JSON object for each file: its path, size and sha256
    python -c SOURCE names FOLDER [PATTERN…]    writes a JSON text for each file, its path; opens no file
    python -c SOURCE send FOLDER                reads lines "BEGIN END PATH" until an empty line; then writes
                                                the bytes from BEGIN to END of each file PATH

A pattern has the form of ``fnmatch``, in which * also matches slashes.

The bytes of a file are sent in pieces. Before each piece, a line has the piece's number of bytes. After the
last piece of a file, a line has the number 0. For a file that cannot be read, only the line with 0 is sent.

The pod's image may be of another release than ``rft``. So ``rft`` passes the source of this module to the
pod, and this module imports only the standard library. It opens only regular files, and follows no link.
"""

import fnmatch
import hashlib
import json
import os
import stat
import sys
import time

PIECE = 1 << 18
"""Maximum size of a piece, in bytes."""
ALIVE_SECONDS = 15.0
"""Number of seconds after which an empty line is written, again and again, while a large file is hashed.

The empty lines show that the program is alive, and keep proxies from closing the connection.
"""


def list_files(folder: str, patterns: list[str], *, hashes: bool) -> None:
    """Write a line of JSON for each file below ``folder`` whose path matches one of the patterns.

    If ``hashes`` is true, the line is an object with the file's path, size and SHA-256 digest. Then only
    regular files are listed. If it is false, the line is only the path as a text, and no file is opened.
    Files and folders whose names begin with a dot are left out.
    """
    for root, folders, names, place in os.fwalk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = os.path.relpath(os.path.join(root, name), folder)  # noqa: PTH118 - of the standard library
            if name.startswith(".") or not any(fnmatch.fnmatchcase(path, each) for each in patterns):
                continue
            if not hashes:
                write(json.dumps(path).encode() + b"\n")
                continue
            try:
                file = opened(name, place)
            except OSError:
                continue  # a link, or removed since the folder was read
            try:
                size, sha256 = hashed(file)
            finally:
                os.close(file)
            write(json.dumps({"path": path, "size": size, "sha256": sha256}).encode() + b"\n")


def hashed(file: int) -> tuple[int, str]:
    """Return the size of an open file in bytes, and its SHA-256 digest."""
    digest, size, said = hashlib.sha256(), 0, time.monotonic()
    while piece := os.read(file, PIECE):
        digest.update(piece)
        size += len(piece)
        if time.monotonic() - said >= ALIVE_SECONDS:
            write(b"\n")
            said = time.monotonic()
    return size, digest.hexdigest()


def send(folder: str) -> None:
    """Write parts of files to standard output. Each line "BEGIN END PATH" on standard input asks for the
    bytes of one file from BEGIN to END. An empty line ends the list.
    """
    wanted = []
    while (line := sys.stdin.buffer.readline()).strip():
        begin, end, path = line.decode().rstrip("\n").split(" ", 2)
        wanted.append((int(begin), int(end), path))
    for begin, end, path in wanted:
        try:
            send_file(folder, path, begin, end)
        except OSError as error:
            write(f"{path}: {error.strerror}\n".encode(), to=2)
        write(b"0\n")


def send_file(folder: str, path: str, begin: int, end: int) -> None:
    """Write the bytes of a file from ``begin`` to ``end``. Raises OSError, also for a link in the path."""
    *folders, name = path.split("/")
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for each in folders:
            inner = os.open(each, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
            os.close(place)
            place = inner
        file = opened(name, place)
    finally:
        os.close(place)
    try:
        os.lseek(file, begin, os.SEEK_SET)
        while piece := os.read(file, min(PIECE, end - begin)):
            write(b"%d\n" % len(piece) + piece)
            begin += len(piece)
    finally:
        os.close(file)


def opened(name: str, place: int) -> int:
    """Return the descriptor of a file, opened for reading. ``place`` is the descriptor of its folder.

    Raises OSError if the file is not a regular one.
    """
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    raise OSError(0, "is not a regular file")


def write(data: bytes, to: int = 1) -> None:
    """Write to standard output, or to standard error if ``to`` is 2."""
    left = memoryview(data)
    while left:
        left = left[os.write(to, left) :]


if __name__ == "__main__":
    if sys.argv[1] in ("list", "names"):
        list_files(sys.argv[2], sys.argv[3:], hashes=sys.argv[1] == "list")
    else:
        send(sys.argv[2])
