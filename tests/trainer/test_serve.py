"""The command line of the server for an adapter. These tests do not start the server."""

import itertools
import json
import shutil
import socket
from pathlib import Path

import pytest

from rft_run.errors import ModelError
from rft_trainer.serve import listening_host, options_of, prepared, serving_command, settings_of
from tests.unit.checkpoint_support import write_adapter


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    config = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
              "intermediate_size": 128, "vocab_size": 100, "max_position_embeddings": 512}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_server_knows_the_adapter_by_the_jobs_name_and_loads_no_other(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter")
    command, variables = prepared(
        ["--base", str(base), "--adapter", str(tmp_path / "adapter"), "--name", "sums", "--host", "127.0.0.1",
         "--port", "8123", "--context-length", "4096"]
    )  # fmt: skip
    options = dict(itertools.pairwise(command))
    assert options["--lora-modules"] == f"sums={tmp_path / 'adapter'}"
    assert options["--served-model-name"] == str(base)
    assert (options["--host"], options["--port"]) == ("127.0.0.1", "8123")
    assert options["--max-model-len"] == "512"
    assert options["--max-lora-rank"] == "8"
    assert "--uds" not in command
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in variables


def test_in_a_pod_the_server_takes_connections_over_ipv4_and_ipv6() -> None:
    """The test opens its socket as vLLM does: with the family of the address, and without socket options."""
    host = listening_host("::")
    if host != "::":
        pytest.skip("this machine has no IPv6")
    with socket.socket(socket.AF_INET6) as server:
        server.bind((host, 0))
        server.listen()
        for client in ("127.0.0.1", "::1"):
            socket.create_connection((client, server.getsockname()[1]), timeout=5).close()


@pytest.mark.parametrize(("host", "expected"), [("::", "0.0.0.0"), ("127.0.0.1", "127.0.0.1")])
def test_without_ipv6_the_server_listens_on_ipv4(
    monkeypatch: pytest.MonkeyPatch, host: str, expected: str
) -> None:
    """A kernel without IPv6 refuses to open IPv6 sockets.

    The test replaces AF_INET6 by a family that does not exist, which the kernel refuses too.
    """
    monkeypatch.setattr(socket, "AF_INET6", 9999)
    assert listening_host(host) == expected


def test_on_gpus_the_server_divides_the_model(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter")
    options = options_of(base, tmp_path / "adapter", 8, 256, "bfloat16", 2)
    assert (options.device, options.tensor_parallel, options.context_length) == ("cuda", 2, 256)
    assert options_of(base, tmp_path / "adapter", 8, 256, "bfloat16", 0).device == "cpu"


def test_on_gpus_the_cache_gets_the_memory_that_is_left(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter")
    options = options_of(base, tmp_path / "adapter", 8, 256, "bfloat16", 2)
    command = serving_command(options, "base", tmp_path / "adapter", "sums", "127.0.0.1", 8000)
    assert "--gpu-memory-utilization" in command
    assert "--kv-cache-memory-bytes" not in command


@pytest.mark.parametrize(("context", "size"), [(512, 2**30), (2**22, 2 * 2 * 64 * 2 * (2**22 + 32))])
def test_on_the_cpu_the_cache_has_room_for_the_whole_context(
    base: Path, tmp_path: Path, context: int, size: int
) -> None:
    """Each token has a key and a value in each of 2 layers. Each key or value has 64 numbers of 2 bytes.

    The cache has room for the context and one more block, which has 32 tokens. The cache has at least 1 GiB.
    """
    write_adapter(tmp_path / "adapter")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "max_position_embeddings": context}))
    assert options_of(base, tmp_path / "adapter", 8, context, "bfloat16", 0).kv_cache_bytes == size


def test_a_folder_that_is_no_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not an adapter"):
        settings_of(tmp_path)


def test_the_base_is_of_the_commit_with_which_the_adapter_was_trained(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base is read from the hub client's cache, without network. The cache has a newer commit too."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cached, (trained, newer) = tmp_path / "hub" / "models--org--model", ("a" * 40, "b" * 40)
    for commit in (trained, newer):
        shutil.copytree(base, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(newer)
    write_adapter(tmp_path / "adapter")
    config_file = tmp_path / "adapter" / "adapter_config.json"
    arguments = [
        "--base", "org/model", "--revision", "main", "--adapter", str(config_file.parent), "--name", "sums",
        "--host", "127.0.0.1", "--port", "8123", "--context-length", "512",
    ]  # fmt: skip
    for revision, commit in ((None, newer), (trained, trained)):
        config_file.write_text(json.dumps(json.loads(config_file.read_text()) | {"revision": revision}))
        command, _ = prepared(arguments)
        assert dict(itertools.pairwise(command))["--model"] == str(cached / "snapshots" / commit)
