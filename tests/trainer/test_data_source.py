"""fsspec copies a remote dataset once. The servers of these tests run on this machine."""

import functools
import http.server
import importlib
import json
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rft_run.errors import ConfigurationError, DataError, Preempted, TrainerError, VolumeError
from rft_trainer.data import source
from rft_trainer.data.source import local_file, shown

ROWS = b'{"messages": [{"role": "user", "content": "1+1"}]}\n' * 20_000


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the files in a folder. ``/denied``, ``/broken`` and ``/status/401`` return errors."""

    seen: list[str]

    def send_head(self) -> Any:
        self.seen.append(self.path)
        for name, status in (("/denied", 403), ("/broken", 500), ("/status/401", 401)):
            if self.path.startswith(name):
                self.send_error(status)
                return None
        return super().send_head()

    def log_message(self, *arguments: object) -> None:
        """Do not log requests."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Start a server for the folder ``tmp_path / "served"``, which has rows.jsonl. Yield its address."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "rows.jsonl").write_bytes(ROWS)
    Handler.seen = []
    handler = functools.partial(Handler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def fetched(uri: str, folder: Path) -> Path:
    return local_file(uri, folder, lambda: False)


def test_a_local_path_or_file_uri_is_not_copied(tmp_path: Path) -> None:
    assert fetched("/data/rows.jsonl", tmp_path) == Path("/data/rows.jsonl")
    assert fetched("file:///data/rows.jsonl", tmp_path) == Path("/data/rows.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_url_is_copied_once_for_all_attempts(server: str, tmp_path: Path) -> None:
    file = fetched(f"{server}/rows.jsonl", tmp_path / "data")
    assert file.read_bytes() == ROWS
    asked = len(Handler.seen)
    (tmp_path / "served" / "rows.jsonl").write_bytes(b"others")
    assert fetched(f"{server}/rows.jsonl", tmp_path / "data").read_bytes() == ROWS
    assert len(Handler.seen) == asked
    (tmp_path / "served" / "more.jsonl").write_bytes(b"more")
    assert fetched(f"{server}/more.jsonl", tmp_path / "data").read_bytes() == b"more"


def test_a_discarded_copy_is_copied_again(server: str, tmp_path: Path) -> None:
    fetched(f"{server}/rows.jsonl", tmp_path / "data")
    source.discard(tmp_path / "data")
    (tmp_path / "served" / "rows.jsonl").write_bytes(b"others")
    assert fetched(f"{server}/rows.jsonl", tmp_path / "data").read_bytes() == b"others"


@pytest.mark.parametrize(
    ("path", "kind", "said"),
    [
        ("absent.jsonl", DataError, "no such file"),
        ("denied/rows.jsonl", DataError, "permission denied"),
        ("broken/rows.jsonl", TrainerError, "cannot be read: 500"),
    ],
)
def test_errors_of_a_server_are_reported_without_secrets_of_the_url(
    server: str,
    tmp_path: Path,
    path: str,
    kind: type[TrainerError],
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    signed = f"{server}/{path}?X-Signature=hidden".replace("://", "://user:hidden@")
    with caplog.at_level(logging.DEBUG, "rft_trainer"), pytest.raises(kind) as caught:
        fetched(signed, tmp_path / "data")
    assert type(caught.value) is kind
    assert said in str(caught.value)
    assert path in str(caught.value)
    assert "hidden" not in str(caught.value) + caplog.text
    assert caught.value.__suppress_context__
    assert not list((tmp_path / "data").glob("*"))


def test_the_record_of_a_copy_contains_no_secret(server: str, tmp_path: Path) -> None:
    fetched(f"{server}/rows.jsonl?X-Signature=hidden", tmp_path / "data")
    about = (tmp_path / "data" / "source.json").read_text()
    assert "hidden" not in about
    assert json.loads(about)["bytes"] == len(ROWS)


def test_an_unreachable_server_is_a_temporary_error(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="cannot be read") as caught:
        fetched("http://127.0.0.1:9/rows.jsonl", tmp_path)
    assert type(caught.value) is TrainerError


def test_an_interrupted_copy_leaves_no_file(server: str, tmp_path: Path) -> None:
    with pytest.raises(Preempted):
        local_file(f"{server}/rows.jsonl", tmp_path / "data", lambda: True)
    assert not list((tmp_path / "data").glob("*"))


def test_too_little_space_on_the_volume_is_reported_before_the_copy(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "_KEPT_FREE", 1 << 60)
    with pytest.raises(VolumeError, match=r"too few for a copy of the dataset \(0 MiB\): enlarge"):
        fetched(f"{server}/rows.jsonl", tmp_path / "data")


def test_a_uri_of_an_unknown_protocol_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nosuch"):
        fetched("nosuch://bucket/rows.jsonl", tmp_path)


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_the_error_for_a_missing_library_names_the_extra_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, package: str
) -> None:
    pytest.importorskip(package)
    registry = importlib.import_module("fsspec.registry")
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(registry, "_registry", {})
    with pytest.raises(ConfigurationError, match=r"rft-operator\[remote-data\]"):
        fetched(f"{scheme}://bucket/rows.jsonl", tmp_path)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "permission denied: set spec.model.secretRef to a Secret with a token"),
        (404, "no such file"),
    ],
)
def test_the_error_for_a_refused_hub_dataset_says_how_to_get_access(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, said: str
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    hub.HfFileSystem.clear_instance_cache()
    monkeypatch.setattr(hub.constants, "ENDPOINT", f"{server}/status/{status}")
    with pytest.raises(DataError) as caught:
        fetched("hf://datasets/owner/name/rows.jsonl", tmp_path / "data")
    hub.HfFileSystem.clear_instance_cache()
    assert str(caught.value) == f"hf://datasets/owner/name/rows.jsonl: {said}"


def test_rows_are_read_from_a_bucket_with_credentials_from_the_environment(s3: Any, tmp_path: Path) -> None:
    s3.create_bucket(Bucket="datasets")
    s3.put_object(Bucket="datasets", Key="sums/rows.jsonl", Body=ROWS)
    assert fetched("s3://datasets/sums/rows.jsonl", tmp_path / "data").read_bytes() == ROWS
    with pytest.raises(DataError, match="no such file"):
        fetched("s3://datasets/sums/absent.jsonl", tmp_path / "absent")
    with pytest.raises(DataError, match="is a folder"):
        fetched("s3://datasets/sums", tmp_path / "folder")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("https://host/rows.jsonl?sig=hidden&x=1", "https://host/rows.jsonl"),
        (
            "403, message='no', url='https://me:hidden@host/a?b=hidden'",
            "403, message='no', url='https://host/a'",
        ),
        ("s3://bucket/rows.jsonl", "s3://bucket/rows.jsonl"),
    ],
)
def test_uris_are_shown_without_secrets(text: str, plain: str) -> None:
    assert shown(text) == plain
