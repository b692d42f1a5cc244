"""A program that lists the files of a run's folder and sends their content to ``rft``. It runs inside a pod
that mounts the volume with the folder.

    python -c SOURCE list FOLDER [PATTERN…]     writes a JSON object for each file: its path, size and sha256
    python -c SOURCE names FOLDER [PATTERN…]    writes the path of each file as a JSON string; opens no file
    python -c SOURCE send FOLDER                reads lines "BEGIN END PATH" until an empty line; then writes
                                                the bytes from BEGIN to END of each file PATH

Results go to standard output. A pattern has the form of ``fnmatch``, in which * also matches slashes.

The command ``send`` writes the bytes of a file in pieces. Before each piece, it writes a line with the number
of bytes in the piece. After the last piece of a file, it writes a line with the number 0. For a file that
cannot be read, it writes only the line with 0.

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
"""Maximum number of bytes that are read or written in one piece."""
ALIVE_SECONDS = 15.0
"""While a large file is hashed, an empty line is written each time that this number of seconds has passed.

The empty lines show that the program is alive, and keep proxies from closing the connection.
"""


def list_files(folder: str, patterns: list[str], *, hashes: bool) -> None:
    """Write a line of JSON to standard output for each file below ``folder`` whose path matches at least one
    of ``patterns``, in the form of ``fnmatch``.

    If ``hashes`` is true, the line is an object with the file's path, size and SHA-256 digest, and only
    regular files are listed. If ``hashes`` is false, the line is the path as a JSON string, and no file is
    opened. Files and folders whose names begin with a dot are left out.
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
                continue  # the file is a link, or was removed since the folder was read
            try:
                size, sha256 = hashed(file)
            finally:
                os.close(file)
            write(json.dumps({"path": path, "size": size, "sha256": sha256}).encode() + b"\n")


def hashed(file: int) -> tuple[int, str]:
    """Read an open file to its end. Return its size in bytes, and its SHA-256 digest as hexadecimal digits.

    ``file`` is the file's descriptor. While a large file is read, empty lines are written to standard output.
    """
    digest, size, said = hashlib.sha256(), 0, time.monotonic()
    while piece := os.read(file, PIECE):
        digest.update(piece)
        size += len(piece)
        if time.monotonic() - said >= ALIVE_SECONDS:
            write(b"\n")
            said = time.monotonic()
    return size, digest.hexdigest()


def send(folder: str) -> None:
    """Write the bytes of files below ``folder`` to standard output, in pieces with their sizes.

    Each line "BEGIN END PATH" on standard input asks for the bytes of the file PATH from the offset BEGIN up
    to, but without, the offset END. An empty line ends the list.
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
    """Write the bytes of the file ``folder/path`` from the offset ``begin`` to ``end`` in pieces. Before each
    piece, write a line with its number of bytes. Raises OSError, also if a part of the path is a link.
    """
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
    """Open a file for reading and return its descriptor. ``place`` is the descriptor of the file's folder.

    Raises OSError, also if the file is not a regular file.
    """
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    raise OSError(0, "is not a regular file")


def write(data: bytes, to: int = 1) -> None:
    """Write all bytes of ``data`` to standard output, or to standard error if ``to`` is 2."""
    left = memoryview(data)
    while left:
        left = left[os.write(to, left) :]


if __name__ == "__main__":
    if sys.argv[1] in ("list", "names"):
        list_files(sys.argv[2], sys.argv[3:], hashes=sys.argv[1] == "list")
    else:
        send(sys.argv[2])
