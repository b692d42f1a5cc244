"""The image of an older operator, made from today's image and the older packages."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.e2e.conftest import ROOT
from tests.skew.releases import Release

CODE = "/opt/other-release"
"""Folder with the packages of the older release, in the image of ``layered``."""


def layered(archive: Path, release: Release, tag: str, target: Path) -> None:
    """Add the packages of ``release`` to the image in ``archive``, as one more layer. Write it to ``target``.

    PYTHONPATH names the folder of these packages, so Python imports them and not those of the image. The
    libraries are those of the image. Both archives have the form of ``docker save``.
    """
    layer = _packages(release)
    with tarfile.open(archive) as base, tarfile.open(target, "w") as made:
        (image,) = json.loads(_member(base, "manifest.json"))
        config = json.loads(_member(base, image["Config"]))
        for name in dict.fromkeys(image["Layers"]):
            _add(made, name, _member(base, name))
        paths = f"PYTHONPATH={CODE}/operator:{CODE}/trainer-image"
        others = [each for each in config["config"].get("Env", []) if not each.startswith("PYTHONPATH=")]
        config["config"]["Env"] = [*others, paths]
        config["rootfs"]["diff_ids"].append(f"sha256:{hashlib.sha256(layer).hexdigest()}")
        config.setdefault("history", []).append({"created_by": f"packages of {release.name}"})
        layers = [*image["Layers"], "release.tar"]
        manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": layers}]
        _add(made, "release.tar", layer)
        _add(made, "config.json", json.dumps(config).encode())
        _add(made, "manifest.json", json.dumps(manifest).encode())


def _packages(release: Release) -> bytes:
    """Return a tar archive with the packages of a release, in the folder ``CODE``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder in ("operator", "trainer-image"):
            archive.add(release.folder / folder, f"{CODE}/{folder}".lstrip("/"), filter=_of_root)
    return buffer.getvalue()


def _of_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Make a file or folder belong to root. Everybody may read it."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode |= 0o555 if entry.isdir() else 0o444
    return entry


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    found = archive.extractfile(name)  # follows links
    assert found is not None, f"{name} is not a file"
    return found.read()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def load(archive: Path) -> None:
    """Load an image archive into the nodes of the test cluster."""
    command = [sys.executable, "-m", "tests.cluster", "load-image", str(archive)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
