"""Builds the pause image, because no registry is available.

The kubelet runs a process from this image in each pod. The pod's namespaces exist as long as this process.
"""

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

from tests.cluster.shell import run, scratch

IMAGE = "localhost/rft-test/pause:1"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

_SOURCE = """\
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void stop(int signal) { _exit(0); }
static void reap(int signal) { while (waitpid(-1, NULL, WNOHANG) > 0) {} }

int main(void) {
  struct sigaction on_stop = {.sa_handler = stop};
  struct sigaction on_child = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
  if (sigaction(SIGINT, &on_stop, NULL) || sigaction(SIGTERM, &on_stop, NULL) ||
      sigaction(SIGCHLD, &on_child, NULL))
    return 1;
  for (;;) pause();
}
"""


def pause_archive(cache: Path) -> Path:
    """Return the path of the pause image, a ``docker save`` archive. Build it if it is not in the cache."""
    archive = cache / f"pause-1-{os.uname().machine}.tar"
    if not archive.exists():
        with scratch(cache / "pause-build") as work:
            (work / "pause.c").write_text(_SOURCE)
            run("gcc", "-Os", "-static", "-s", "-o", work / "pause", work / "pause.c")
            draft = work / archive.name
            _write_archive(draft, (work / "pause").read_bytes())
            draft.rename(archive)
    return archive


def _write_archive(target: Path, program: bytes) -> None:
    layer = _tar({"pause": (program, 0o755)})
    config = {
        "architecture": _ARCHITECTURES[os.uname().machine],
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    files = {
        "manifest.json": json.dumps(manifest).encode(),
        "config.json": json.dumps(config).encode(),
        "layer.tar": layer,
    }
    target.write_bytes(_tar({name: (content, 0o644) for name, content in files.items()}))


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    """Return a tar archive of ``files``: for each file name, the content and the mode."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
