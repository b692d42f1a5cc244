"""Writes complete adapters and checkpoints for tests that run without torch."""

import json
import zipfile
from pathlib import Path

from rft_run.folder import RunFolder, adapter_of, pickle_of, state_of, tensors_of, values_of
from rft_run.state import RunState


def safetensors(text: str = "") -> bytes:
    """Return a safetensors file with one tensor. The tensor's data is ``text``."""
    data = text.encode()
    tensor = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    header = json.dumps({"weight": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + data


def write_adapter(folder: Path, text: str = "", base: str = "/opt/models/somewhere") -> None:
    folder.mkdir(parents=True)
    config = {"r": 8, "base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(safetensors(text))


def write_checkpoint(folder: RunFolder, step: int, state: RunState | None = None, text: str = "") -> None:
    checkpoint = folder.checkpoint_of(step)
    write_adapter(adapter_of(checkpoint), text)
    state_of(checkpoint).write_text(json.dumps((state or RunState(step=step)).to_json()))
    tensors_of(checkpoint).write_bytes(safetensors())
    values_of(checkpoint).write_text("{}")


def as_old_release(checkpoint: Path) -> None:
    """Replace a checkpoint's training state by a ``training.pt``, which older releases wrote.

    The file has the format of ``torch.save``, but no tensors.
    """
    tensors_of(checkpoint).unlink()
    values_of(checkpoint).unlink()
    with zipfile.ZipFile(pickle_of(checkpoint), "w") as archive:
        archive.writestr("data", "")
