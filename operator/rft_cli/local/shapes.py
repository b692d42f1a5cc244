"""Finds the ``config.json`` of a model, and reads the model's shape from it: number and sizes of layers."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from rft_api.sources import ModelSource
from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_planner.architectures import Untrainable, check_trainable
from rft_planner.modelconfig import UnreadableConfig, from_config
from rft_planner.shapes import Shape
from rft_run.errors import first_line

CONFIG_FILE = "config.json"


class Read(NamedTuple):
    """The shape of a model (number and sizes of its layers), and the ``config.json`` that has the shape."""

    shape: Shape
    path: Path


class UntrainableModel(UserError):
    """The model's ``config.json`` shows that this project cannot train the model."""


def shape_for(model: ModelSource, config: Path | None, *, hub: bool) -> Read | None:
    """Return the shape (number and sizes of layers) of ``model``, which is ``spec.model``, from the model's
    ``config.json``. The file comes from the first of these places that applies:

    - ``config``, if it is given: it is the file, or a folder with the file
    - the hub, if ``hub`` is true: the file is downloaded
    - the model's folder, if its name is a folder on this machine
    - this machine's cache of the hub

    Return None if the file is not in the cache. Also return None if neither ``config`` nor ``hub`` is given
    and ``spec.model.parameters`` is set, because then the user gives the size of the model.

    Raises:
        UntrainableModel: if the file shows that the model cannot be trained. This is checked even if
            ``spec.model.parameters`` is set.
        UserError: if a file cannot be read or describes no shape, or the download from the hub fails.
    """
    path = _file(model, config, hub=hub)
    if path is None:
        return None
    found = _object(path)
    try:
        check_trainable(found, model.name)
    except Untrainable as error:
        raise UntrainableModel(str(error), INVALID) from error
    if config is None and not hub and model.parameters is not None:
        return None
    return _shape(found, path)


def _file(model: ModelSource, config: Path | None, *, hub: bool) -> Path | None:
    if config is not None:
        return config / CONFIG_FILE if config.is_dir() else config
    if hub:
        return _from_hub(model)
    folder = Path(model.name).expanduser()
    return folder / CONFIG_FILE if folder.is_dir() else _cached(model)


def _object(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not JSON"
        raise UserError(f"{path}: cannot be read as a model's config.json: {reason}", UNREADABLE) from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: is not a model's config.json: not a JSON object", UNREADABLE)
    return config


def _shape(config: dict[str, Any], path: Path) -> Read:
    try:
        return Read(from_config(config), path)
    except UnreadableConfig as error:
        raise UserError(f"{path}: {error}", INVALID) from error


def _cached(model: ModelSource) -> Path | None:
    """Return the path of the model's ``config.json`` in this machine's cache of the hub. Return None if the
    cache does not have the file. Nothing is downloaded.
    """
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    try:
        found = try_to_load_from_cache(model.name, CONFIG_FILE, revision=model.revision)
    except ValueError:  # not a valid repository name of the hub
        return None
    return Path(found) if isinstance(found, str) else None


def _from_hub(model: ModelSource) -> Path:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise UserError("--hub: needs the package huggingface_hub: pip install huggingface_hub") from error
    try:
        return Path(hf_hub_download(model.name, CONFIG_FILE, revision=model.revision))
    except Exception as error:  # the hub's client raises httpx errors, its own ones and OSError
        reason = first_line(error)
        raise UserError(
            f"--hub: {model.name}: the hub did not give config.json: {reason}; for a gated model set HF_TOKEN"
            " or log in with hf auth login; if the hub cannot be reached, pass --config FILE",
            UNREADABLE,
        ) from error
