"""All installed packages except torch are pinned with hashes. One file pins the base image."""

import hashlib
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripts.hashed import locked, normalized, planned, selected
from scripts.pin_base import DOCKERFILES, FILE, Image, digest_of, read, write

ROOT = Path(__file__).parents[2]
MANIFEST = b'{"schemaVersion": 2, "manifests": []}'
DIGEST = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()
INSTALLER = (ROOT / "scripts" / "install-vllm-cpu.sh").read_text(encoding="utf-8")
LOCK = (ROOT / "constraints-hashes.txt").read_text(encoding="utf-8")
GPU_LOCK = (ROOT / "constraints-gpu.txt").read_text(encoding="utf-8")


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {normalized(name): version for name, _, version in (line.partition("==") for line in lines)}


def test_the_lock_has_a_hash_for_every_pinned_version_but_torch() -> None:
    lock = locked(LOCK)
    assert dict(lock).keys() == {(name, version) for name, version in pins().items() if name != "torch"}
    for version, lines in lock.items():
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", lines), version


def test_the_image_for_gpus_has_the_versions_that_are_tested_on_the_cpu() -> None:
    pinned = pins()
    pinned["vllm"] = pinned.pop("vllm-cpu")
    on_gpus = dict(locked(GPU_LOCK))
    assert {(name, pinned[name]) for name in ("vllm", "torch", "transformers", "peft")} <= on_gpus.keys()
    others = {name for name, version in on_gpus if pinned.get(name, version) != version}
    assert others <= {"apache-tvm-ffi"}, "only this package may have another version on GPUs"


def test_the_image_for_gpus_takes_only_files_with_the_hashes_of_its_lock() -> None:
    for version, lines in locked(GPU_LOCK).items():
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", lines), version
    dockerfile = (ROOT / "trainer-image" / "Dockerfile").read_text(encoding="utf-8")
    [line] = re.findall(r"(?m)^ +gpu\) (.*?) ;;", dockerfile)
    assert line == "pip install --no-deps --require-hashes --requirement /opt/rft/build/constraints-gpu.txt"


def test_the_operators_image_gets_the_entries_of_what_pip_plans_and_nothing_else() -> None:
    report = json.dumps(
        {
            "install": [
                {"metadata": {"name": name, "version": pins()[name]}} for name in ("pydantic", "pyyaml")
            ]
        }
    )
    entries = selected(planned(report), locked(LOCK))
    assert [entry.partition("==")[0] for entry in entries] == ["pydantic", "pyyaml"]
    assert all("--hash=sha256:" in entry for entry in entries)


def test_a_package_that_the_lock_lacks_ends_the_build_and_is_named() -> None:
    with pytest.raises(LookupError, match=r"lacks evil==1.0; run make lock"):
        selected([("pydantic", pins()["pydantic"]), ("evil", "1.0")], locked(LOCK))


def test_names_are_compared_as_indexes_spell_them() -> None:
    entry = "Typing_Extensions==1 \\\n    --hash=sha256:ab"
    assert locked(f"# a comment\n{entry}\nother==2\n") == {
        ("typing-extensions", "1"): entry,
        ("other", "2"): "other==2",
    }


@pytest.mark.parametrize("wrong", [False, True], ids=["the lock's hash", "another hash"])
def test_the_installer_takes_a_file_only_with_the_hash_of_the_lock(tmp_path: Path, wrong: bool) -> None:
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    digest = "0" * 64 if wrong else hashlib.sha256(wheel.read_bytes()).hexdigest()
    hashes = tmp_path / "hashes.txt"
    hashes.write_text(f"tiny==1.0 \\\n    --hash=sha256:{digest}\n")
    install = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--no-index",
        "--no-cache",
        "--find-links",
    ]
    ran = subprocess.run(
        [*install, str(tmp_path), "--target", str(tmp_path / "out"), "-c", str(hashes), "tiny"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode != 0) == wrong, ran.stderr
    assert ("Hash mismatch" in ran.stderr) == wrong
    assert '-c "$pins" ${hashes:+-c "$hashes"} "$@"' in INSTALLER, "the script must pass the lock to uv"


def test_both_dockerfiles_have_the_base_image_of_the_one_file() -> None:
    image = read((ROOT / FILE).read_text(encoding="utf-8"))
    for name in DOCKERFILES:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert re.findall(r"(?m)^ARG BASE_IMAGE=(.*)$", text) == [str(image)]
        assert "FROM ${BASE_IMAGE} AS python" in text


def test_every_file_that_the_images_copy_is_sent_to_the_build_and_counts_as_an_input() -> None:
    sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    inputs = (ROOT / "scripts" / "build-image.sh").read_text(encoding="utf-8")
    for name in DOCKERFILES:
        lines = re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", (ROOT / name).read_text(encoding="utf-8"))
        for copied in " ".join(lines).split():
            assert f"!{copied}" in sent
            assert re.search(rf"(?m)^\s+(find )?.*(?<![\w/-]){re.escape(copied)}(?![\w/-])", inputs), copied


class Registry(http.server.BaseHTTPRequestHandler):
    """A fake image registry that asks for an anonymous token, as Docker Hub does."""

    sent = MANIFEST

    def do_GET(self) -> None:
        if self.path.startswith("/token?"):
            assert "scope=repository" in self.path
            self._answer(200, b'{"token": "t"}')
        elif self.headers.get("Authorization") != "Bearer t":
            own = f"http://127.0.0.1:{self.server.server_port}/token"  # type: ignore[attr-defined]
            asked = f'Bearer realm="{own}",service="s",scope="repository:library/python:pull"'
            self._answer(401, b"", ("WWW-Authenticate", asked))
        elif self.path == "/v2/library/python/manifests/3.11":
            self._answer(200, self.sent, ("Docker-Content-Digest", DIGEST))
        else:
            self._answer(404, b"")

    def _answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for header in headers:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Do not log requests."""


@pytest.fixture
def registry() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


PYTHON = Image("docker.io/library/python", "3.11")


def test_the_digest_of_a_tag_is_computed_from_what_the_registry_sends(registry: str) -> None:
    assert digest_of(PYTHON, registry) == DIGEST


def test_content_that_does_not_have_the_digest_is_refused(
    registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Registry, "sent", MANIFEST + b" ")
    with pytest.raises(ValueError, match="but its response has the digest sha256:"):
        digest_of(PYTHON, registry)


def test_a_tag_that_does_not_exist_is_an_error(registry: str) -> None:
    with pytest.raises(OSError, match="404"):
        digest_of(PYTHON._replace(tag="none"), registry)


def test_a_digest_is_written_to_the_file_and_both_dockerfiles_and_moved_later(tmp_path: Path) -> None:
    for name in (FILE, *DOCKERFILES):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    image = read((tmp_path / FILE).read_text())
    for digest in (DIGEST, "sha256:" + "0" * 64):
        write(image._replace(digest=digest), tmp_path)
        assert read((tmp_path / FILE).read_text()) == image._replace(digest=digest)
        for name in DOCKERFILES:
            assert f"ARG BASE_IMAGE={image.name}:{image.tag}@{digest}\n" in (tmp_path / name).read_text()


@pytest.mark.parametrize(
    "text", ["", "python", "python:3.11", "docker.io/library/python", "docker.io/x:1@sha256:ab"]
)
def test_a_reference_without_registry_or_tag_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=FILE):
        read(text)


@pytest.mark.parametrize("script", ["audit.sh", "lock.sh", "install-vllm-cpu.sh", "build-image.sh"])
def test_the_scripts_can_be_parsed(script: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / "scripts" / script)], check=True)
