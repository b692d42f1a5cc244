"""Writes today's digest of the base image into base-image.txt and both Dockerfiles.

    python3 scripts/pin_base.py [--registry URL]

The files have the image's tag too, so the same command can update the digest later. The tag has an image
index, which lists an image for each kind of processor. The digest is computed from this index, as the
registry sends it. It must equal the digest in the header of the registry's response.
"""

import argparse
import hashlib
import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
FILE = "base-image.txt"
DOCKERFILES = ("operator/Dockerfile", "trainer-image/Dockerfile")
HUB = "https://registry-1.docker.io"
ACCEPTED = (
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json"
)
SECONDS = 30
MOST_BYTES = 4 << 20


class Image(NamedTuple):
    """The reference of an image: its name with the registry, its tag, and its digest, which may be empty."""

    name: str
    tag: str
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}{self.digest and '@' + self.digest}"


def read(text: str) -> Image:
    """Return the reference in a text. Raises ValueError if the text lacks a registry or a tag."""
    found = re.fullmatch(r"([\w.:-]+/[\w./-]+):([\w.-]+)(?:@(sha256:[0-9a-f]{64}))?", text.strip())
    if found is None:
        raise ValueError(
            f"{FILE}: {text.strip()!r} is not REGISTRY/NAME:TAG or REGISTRY/NAME:TAG@sha256:DIGEST"
        )
    return Image(found[1], found[2], found[3] or "")


def digest_of(image: Image, registry: str) -> str:
    """Ask the registry at the URL ``registry`` for the digest of the image's tag, and return the digest.

    Raises ValueError, KeyError or OSError if the answer is missing or wrong.
    """
    repository = image.name.partition("/")[2]
    url = f"{registry}/v2/{repository}/manifests/{image.tag}"
    try:
        content, said = _get(url, "")
    except urllib.error.HTTPError as error:
        if error.code != 401:
            raise
        content, said = _get(url, _token(error.headers.get("WWW-Authenticate", "")))
    found = "sha256:" + hashlib.sha256(content).hexdigest()
    if said != found:
        raise ValueError(
            f"{url}: the registry names {said or 'no digest'}, but its response has the digest {found}"
        )
    return found


def _get(url: str, token: str) -> tuple[bytes, str]:
    headers = {"Accept": ACCEPTED, **({"Authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
        return answer.read(MOST_BYTES), answer.headers.get("Docker-Content-Digest", "")


def _token(challenge: str) -> str:
    """Return the anonymous token that a registry's challenge asks for."""
    asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = asked.pop("realm", "")
    if not realm.startswith(("http://", "https://")):
        raise ValueError(f"the registry asks for {challenge!r}, which is no known kind of token")
    content, _ = _get(f"{realm}?{urllib.parse.urlencode(asked)}", "")
    body = json.loads(content)
    return str(body.get("token") or body["access_token"])


def write(image: Image, root: Path = ROOT) -> None:
    """Write the reference into the file and into both Dockerfiles."""
    (root / FILE).write_text(f"{image}\n", encoding="utf-8")
    for name in DOCKERFILES:
        path = root / name
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"(?m)^ARG BASE_IMAGE=.*$", f"ARG BASE_IMAGE={image}", text), encoding="utf-8")


def main() -> None:
    """Write today's digest of the base image into the files. Exit with a message if it cannot be found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--registry", default=HUB, help="address of the registry")
    registry = parser.parse_args().registry
    try:
        image = read((ROOT / FILE).read_text(encoding="utf-8"))
        pinned = image._replace(digest=digest_of(image, registry))
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"the digest of the base image is not known: {error}")
    write(pinned)
    print(f"{image} is now {pinned}")


if __name__ == "__main__":
    main()
