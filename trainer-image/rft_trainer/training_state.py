"""Reads and writes the state of training in a checkpoint: weights, optimizer, schedule, random generators.

The files have only tensors and values, so they cannot run code:

- ``training.safetensors``: the adapter's weights and the optimizer's moments.
- ``training.json``: the optimizer's settings, the schedule and the states of the random generators.

Reading returns exactly the bits that were written. Older releases wrote one pickle, ``training.pt``, instead
of both files. It is read with torch's unpickler for tensors and numbers. A pickle with other types is
refused.
"""

import base64
import io
import json
import math
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from rft_run import run_files
from rft_run.checkpoint import is_of_old_release
from rft_run.errors import first_line
from rft_run.folder import pickle_of, tensors_of, values_of
from rft_run.tensors import HEADER_BEGINS, safetensors_header

T = TypeVar("T")
_ADAPTER, _OPTIMIZER = "adapter", "optimizer"
BROKEN = (
    RuntimeError, ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, EOFError,
    pickle.UnpicklingError, SafetensorError,
)  # fmt: skip
"""The exceptions of torch, safetensors and Python for a file with damaged content."""
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip
"""The torch dtype for each name of a dtype in a safetensors file. Other dtypes are not read."""
_CODE = (
    "is a pickle that could run code when it is loaded ({}), so it is not loaded. No version of the trainer"
    " writes such a file: find out who can write to this volume. Then restore the file from a backup, or"
    " remove the folder of this checkpoint, to go on from the checkpoint before it"
)


@dataclass(frozen=True)
class TrainingState:
    """The tensors and values of training after a step, which a resumed run restores.

    The fields have the names of the entries of ``training.pt``, the file of older releases.
    """

    adapter: dict[str, Tensor]
    optimizer: dict[str, Any]
    """The ``state_dict`` of the optimizer. Its state has only tensors."""
    schedule: dict[str, float]
    torch_rng: Tensor
    cuda_rng: list[Tensor]
    """The state of the random generator of each GPU."""
    python_rng: tuple[Any, ...]
    """The state of Python's random generator, from ``random.getstate``."""


class NotRead(Exception):
    """The files of a checkpoint cannot be read. The message names the file."""


def write(checkpoint: Path, state: TrainingState) -> None:
    """Write ``training.safetensors`` and ``training.json`` into the folder of a checkpoint.

    Raises OSError and SafetensorError if they cannot be written. Raises TypeError if the optimizer's settings
    cannot be written as JSON.
    """
    named = {f"{_ADAPTER}.{name}": tensor for name, tensor in state.adapter.items()}
    for index, moments in state.optimizer["state"].items():
        named |= {f"{_OPTIMIZER}.{index}.{name}": tensor for name, tensor in moments.items()}
    values = {
        "version": 1,
        "optimizer": state.optimizer["param_groups"],
        "schedule": state.schedule,
        "random": {
            "python": state.python_rng,
            "torch": _encoded(state.torch_rng),
            "cuda": [_encoded(one) for one in state.cuda_rng],
        },
    }
    save_file({name: tensor.detach().contiguous() for name, tensor in named.items()}, tensors_of(checkpoint))
    values_of(checkpoint).write_text(json.dumps(values, allow_nan=False) + "\n", encoding="utf-8")


def read(checkpoint: Path) -> TrainingState:
    """Return the state of training in a checkpoint's folder, which may be of an older release.

    Raises NotRead if a file is damaged, and OSError.
    """
    if is_of_old_release(checkpoint):
        return _of_pickle(pickle_of(checkpoint))
    values = _explained(values_of(checkpoint), run_files.json_of)
    tensors = _explained(tensors_of(checkpoint), _tensors)
    return _explained(values_of(checkpoint), lambda _: _checked(_joined(values, tensors)))


def _explained(file: Path, reader: Callable[[Path], T]) -> T:
    """Call ``reader`` with a file, and return its result.

    If the content is damaged, raise NotRead with the file's name. Raises OSError if the volume fails.
    """
    try:
        return reader(file)
    except BROKEN as error:
        raise NotRead(f"{file}: {first_line(error)}") from error


def _tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    The library safetensors is not used, because it would map the file into memory. Then a change of the file
    would change a tensor, and a file that becomes shorter would kill the process. The library is also slower.
    """
    header = safetensors_header(file)
    entries = {name: entry for name, entry in run_files.json_value(header).items() if name != "__metadata__"}
    with run_files.opened(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        if sum(end - begin for begin, end in (entry["data_offsets"] for entry in entries.values())) > size:
            raise ValueError("has tensors whose bytes overlap in the file")
        return {name: _tensor(stream, HEADER_BEGINS + len(header), entry) for name, entry in entries.items()}


def _tensor(stream: io.BufferedReader, begins: int, entry: Mapping[str, Any]) -> Tensor:
    """Read one tensor of a safetensors file.

    - ``begins``: the offset in the file at which the data of all tensors begins, in bytes.
    - ``entry``: the tensor's entry in the header: offsets within the data, dtype and shape.

    Raises ValueError if the file does not have the data.
    """
    (begin, end), dtype, shape = entry["data_offsets"], _DTYPES[entry["dtype"]], entry["shape"]
    if end - begin != math.prod(shape) * dtype.itemsize or min([begin, *shape]) < 0:
        raise ValueError(f"has a tensor of the shape {shape} in {end - begin} bytes")
    data = torch.empty(end - begin, dtype=torch.uint8)
    stream.seek(begins + begin)
    if stream.readinto(data.numpy().data) != end - begin:
        raise ValueError("became shorter while it was read")
    return data.view(dtype).reshape(shape)


def _joined(values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> TrainingState:
    adapter: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part == _ADAPTER:
            adapter[rest] = tensor
        else:
            index, _, moment = rest.partition(".")
            moments.setdefault(int(index), {})[moment] = tensor
    random = values["random"]
    version, internal, gauss = random["python"]
    return TrainingState(
        adapter=adapter,
        optimizer={"state": moments, "param_groups": [_group(group) for group in values["optimizer"]]},
        schedule=values["schedule"],
        torch_rng=_decoded(random["torch"]),
        cuda_rng=[_decoded(one) for one in random["cuda"]],
        python_rng=(version, tuple(internal), gauss),
    )


def _group(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return an optimizer's parameter group, read from JSON, with tuples in place of lists.

    JSON has no tuples, so a tuple such as the betas of AdamW was written as a list. ``params`` stays a list.
    """
    return {
        name: tuple(value) if isinstance(value, list) and name != "params" else value
        for name, value in group.items()
    }


def _checked(state: TrainingState) -> TrainingState:
    """Check a state that was read from a file, and return it unchanged.

    Raises ValueError if a setting is not a number, or if a tensor has more elements than its file has data.
    """
    for place in ({"schedule": state.schedule}, *state.optimizer["param_groups"]):
        for name, value in place.items():
            if name != "params" and not _is_setting(value):
                raise ValueError(f"{name} is not a number of at most {run_files.MOST}")
    if any(_is_expanded(tensor) for part in (state.adapter, state.optimizer) for tensor in _tensors_in(part)):
        raise ValueError("has a tensor that is larger than its data, which no release writes")
    return state


def _is_setting(value: Any) -> bool:
    if isinstance(value, dict | tuple):
        return all(_is_setting(part) for part in (value.values() if isinstance(value, dict) else value))
    return value is None or (isinstance(value, int | float) and abs(value) <= run_files.MOST)


def _encoded(generator: Tensor) -> str:
    return base64.b64encode(generator.numpy().tobytes()).decode("ascii")


def _decoded(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text, validate=True)), dtype=torch.uint8)


# --- older releases -------------------------------------------------------------------------------


def _of_pickle(file: Path) -> TrainingState:
    """Return the state of training in a file that an older release wrote with ``torch.save``.

    Only tensors, numbers and containers are read from the file's pickle, so no code runs.
    ``check_torch_file`` has checked that the entries of the file are not compressed. Raises NotRead, and
    OSError.
    """
    with run_files.opened(file) as stream:
        saved = _explained(file, lambda _: _unpickled(stream))
    names = [field.name for field in fields(TrainingState)]
    missing = [name for name in names if name not in saved] if isinstance(saved, dict) else names
    if missing:
        raise NotRead(f"{file}: entries are missing: {', '.join(missing)}")
    return _explained(file, lambda _: _checked(TrainingState(**{name: saved[name] for name in names})))


def _unpickled(stream: io.BufferedReader) -> Any:
    try:
        # get_unsafe_globals_in_checkpoint reads the pickle's operations, but does not execute them. It
        # refuses archives of torch.jit, which have code.
        if named := torch.serialization.get_unsafe_globals_in_checkpoint(stream):
            raise pickle.UnpicklingError(", ".join(sorted(named)[:3]))
        stream.seek(0)
        return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(_CODE.format(first_line(error))) from error


def _tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in parts for tensor in _tensors_in(part)]


def _is_expanded(tensor: Tensor) -> bool:
    return tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
