"""Starts a Prometheus, and asks its HTTP API."""

import json
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.ports import free_ports


def program(name: str) -> str:
    """Return the path of ``prometheus`` or ``promtool``. Exit with a message if it is not on the PATH."""
    path = shutil.which(name)
    if path is None:
        sys.exit(f"{name} is not on the PATH; Debian's package `prometheus` has it")
    return path


@contextmanager
def prometheus(folder: Path, config: Mapping[str, Any], options: Sequence[str] = ()) -> Iterator[str]:
    """Start Prometheus with a configuration and further command line options. Yield its URL.

    Prometheus keeps its samples in ``data`` in ``folder``. It also reads the blocks that are already there.
    """
    path = program("prometheus")
    (port,) = free_ports(1)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    usual = [
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([path, *usual, *options], stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def ask(url: str, path: str, **query: str) -> Any:
    """Return the data in an answer of Prometheus' API, or ``None`` if Prometheus does not answer."""
    address = f"{url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return json.load(answer)["data"]
    except OSError:
        return None
