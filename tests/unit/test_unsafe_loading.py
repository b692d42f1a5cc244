"""No program loads data that could run code. Files of a run are opened only by ``rft_run.run_files``."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.program_support import PROGRAMS, programs

ROOT = Path(__file__).parents[2]
UNPICKLERS = frozenset({
    "pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "dbm", "tarfile",
    "multiprocessing", "jsonpickle", "imp", "runpy",
})  # fmt: skip
"""Modules that can load code or pickles, or unpack archives, whose members may be links or unsafe paths."""
CALLS = frozenset({
    "eval", "exec", "compile", "__import__", "torch.jit.load", "torch.hub.load",
    "torch.package.PackageImporter",
    "torch.serialization.add_safe_globals", "yaml.unsafe_load", "yaml.full_load", "yaml.unsafe_load_all",
    "yaml.full_load_all", "pandas.read_pickle", "shutil.unpack_archive",
})  # fmt: skip
METHODS = frozenset({"extractall", "extract", "unsafe_load", "read_pickle"})
SAFE_LOADERS = frozenset({"_Loader", "_MergelessLoader", "yaml.SafeLoader", "yaml.CSafeLoader", "_Dumper"})
READS = frozenset({"read_text", "read_bytes", "open"})

ALLOWED: dict[str, frozenset[str]] = {
    "trainer-image/rft_trainer/training_state.py": frozenset({"pickle"}),  # for the class UnpicklingError
    "trainer-image/rft_trainer/learn/ranks.py": frozenset({"multiprocessing"}),  # a pipe to its own children
    "trainer-image/rft_trainer/learn/follower.py": frozenset({"multiprocessing"}),  # its other end
    "operator/rft_graders/worker.py": frozenset({"exec", "compile"}),  # users' code, in its own process
    "bench/trl_side/train.py": frozenset({"exec", "compile"}),  # the benchmark's own grader
    "trainer-image/rft_trainer/runtime/loading.py": frozenset(
        {"PeftModel.from_pretrained"}
    ),  # check_adapter is called before
    "trainer-image/rft_trainer/learn/policy.py": frozenset({"LoraConfig.from_pretrained"}),  # likewise
}
READERS = frozenset({
    # modules that open files for others, or write files atomically
    "operator/rft_run/run_files.py", "operator/rft_run/atomic.py", "trainer-image/rft_trainer/files.py",
    # runs in the pod that reads a volume, where it can import no module of the product
    "operator/rft_cli/cluster/reader.py",
    # open files of a model, or of this machine
    "operator/rft_run/fingerprint.py", "operator/rft_cli/local/shapes.py",
    "operator/rft_cli/local/snapshot.py",
    "trainer-image/rft_trainer/runtime/machine.py", "trainer-image/rft_trainer/runtime/models.py",
    "trainer-image/rft_trainer/rollout/vllm_server.py",
    # open files that the command line or the manifest names; the trainer opens rows within ``readable``
    "operator/rft_cli/local/own_files.py", "operator/rft_cli/commands/import_.py",
    "operator/rft_cli/importing/fireworks.py", "operator/rft_cli/main.py",
    "operator/rft_cli/local/survey.py",
    "operator/rft_cli/local/inputs.py", "operator/rft_cli/local/rows.py", "operator/rft_cli/local/grading.py",
    "operator/rft_cli/commands/new.py", "operator/rft_cli/commands/export.py",
    # compares a file with the new text for it
    "operator/rft_cli/new_files.py",
    "trainer-image/rft_trainer/__main__.py",
    "trainer-image/rft_trainer/inputs.py", "trainer-image/rft_trainer/data/unpacking.py",
    "trainer-image/rft_trainer/data/whole.py", "trainer-image/rft_trainer/data/streamed.py",
    "trainer-image/rft_trainer/data/lines.py",
    # opens objects of a bucket for writing, and no files
    "trainer-image/rft_trainer/remote/s3.py",
    # read the token and the namespace of the pod
    "operator/rft_cli/cluster/client.py",
    "trainer-image/rft_trainer/monitors/report.py",
})  # fmt: skip
"""Modules that may open files by their path.

Each of these modules checks every file, or opens only files that are not in a run's folder.
"""


def dotted(node: ast.expr) -> str:
    """Return the dotted name in an expression, such as ``torch.load``, or "" if the expression is no name."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def full_names(tree: ast.Module) -> dict[str, str]:
    """Return the full name of each imported name, such as ``numpy`` for ``np``."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def keyword(call: ast.Call, name: str) -> object:
    """Return the value of a keyword argument of a call.

    Return None if the call does not have this argument, and "?" if the value is not a constant.
    """
    given = next((each.value for each in call.keywords if each.arg == name), None)
    if given is None:
        return None
    return given.value if isinstance(given, ast.Constant) else "?"


def problem_of_call(call: ast.Call, names: dict[str, str]) -> str | None:
    """Return why a call is unsafe, or None if it is safe. ``names``: the full names of imported names."""
    said = dotted(call.func)
    first, _, rest = said.partition(".")
    name = names.get(first, first) + (f".{rest}" if rest else "")
    last = name.rpartition(".")[2]
    owner = said.rpartition(".")[0].rpartition(".")[2]
    if name in CALLS:
        return name
    if last in METHODS:
        return f".{last}"
    if name == "torch.load" and keyword(call, "weights_only") is not True:
        return "torch.load without weights_only=True"
    if keyword(call, "allow_pickle") not in (None, False):
        return "allow_pickle"
    if name in ("yaml.load", "yaml.load_all") and loader_of(call) not in SAFE_LOADERS:
        return f"{name} without a SafeLoader"
    if keyword(call, "trust_remote_code") not in (None, False):
        return "trust_remote_code"
    return problem_of_model(call, owner, last)


def loader_of(call: ast.Call) -> str:
    """Return the name of the loader class in a call of ``yaml.load``, or "" if the call has none."""
    given = [*call.args[1:2], *(each.value for each in call.keywords if each.arg == "Loader")]
    return dotted(given[0]) if given else ""


def problem_of_model(call: ast.Call, owner: str, method: str) -> str | None:
    if method != "from_pretrained" and not (method == "from_config" and owner.startswith(("Auto", "kind"))):
        return None
    if owner in ("PeftModel", "LoraConfig", "PeftConfig", "AutoPeftModelForCausalLM"):
        return f"{owner}.{method}"
    spread = any(each.arg is None for each in call.keywords)  # ** has the settings of a GGUF file
    if keyword(call, "trust_remote_code") is not False and not spread:
        return f"{owner}.{method} without trust_remote_code=False"
    is_model = owner == "kind" or owner.startswith("AutoModel")
    if (
        method == "from_pretrained"
        and is_model
        and keyword(call, "use_safetensors") is not True
        and not spread
    ):
        return f"{owner}.{method} without use_safetensors=True"
    return None


def problems(tree: ast.Module) -> Iterator[str]:
    """Yield each unsafe import and each unsafe call of a module.

    Each of them could load code or a pickle, or unpack an archive.
    """
    yield from (name for name in imported(tree) if name in UNPICKLERS)
    names = full_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (found := problem_of_call(node, names)):
            yield found


def reads(tree: ast.Module) -> Iterator[str]:
    """Yield the name of each call that opens a file by its path, such as ``path.read_text``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            called = name or (node.func.attr if isinstance(node.func, ast.Attribute) else "")
            if called.rpartition(".")[2] in READS:
                yield called


PACKAGES = sorted(
    {
        "/".join(path.relative_to(ROOT).parts[:2])
        for name in PROGRAMS[:2]
        for path in (ROOT / name).glob("rft*")
    }
    | set(PROGRAMS[2:])
)


def test_every_program_belongs_to_a_package_that_is_searched() -> None:
    assert [place for place in programs() if not place.startswith(tuple(PACKAGES))] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_program_loads_what_could_run_code(package: str) -> None:
    searched = {place: tree for place, tree in programs().items() if place.startswith(f"{package}/")}
    assert searched
    found = {
        place: left
        for place, tree in searched.items()
        if (left := set(problems(tree)) - ALLOWED.get(place, frozenset()) - of_a_benchmark(place))
    }
    assert found == {}


def of_a_benchmark(place: str) -> set[str]:
    """Return the unsafe calls that the module at ``place`` may make. The set is empty except for benchmarks.

    Benchmarks may make such calls, because they load only models that they made themselves.
    """
    if not place.startswith("bench/"):
        return set()
    kinds = ("AutoTokenizer", "AutoModelForCausalLM", "kind")
    missing = ("trust_remote_code=False", "use_safetensors=True")
    return {f"{kind}.from_pretrained without {what}" for kind in kinds for what in missing} | {
        "PeftModel.from_pretrained", "kind.from_config without trust_remote_code=False", "multiprocessing",
        "AutoModelForCausalLM.from_config without trust_remote_code=False",
    }  # fmt: skip


def test_each_exception_is_still_needed() -> None:
    trees = programs()
    unused = {place: allowed - set(problems(trees[place])) for place, allowed in ALLOWED.items()}
    assert not any(unused.values()), unused
    assert [place for place in sorted(READERS) if not set(reads(trees[place]))] == []


def test_files_of_a_run_are_opened_by_one_module() -> None:
    folders = ("operator/rft_run/", "operator/rft_cli/", "trainer-image/rft_trainer/")
    others = {place: tree for place, tree in programs().items() if place.startswith(folders)}
    found = {place: set(reads(tree)) for place, tree in others.items() if place not in READERS}
    assert {place: calls for place, calls in found.items() if calls} == {}


BANNED = [
    "import pickle", "from pickle import loads", "import marshal, json", "import shelve", "import tarfile",
    "import torch\ntorch.load(f)", "import torch\ntorch.load(f, weights_only=False)",
    "import torch\ntorch.load(f, weights_only=trusted)", "from torch import load\nload(f)",
    "import torch as t\nt.load(f)", "import numpy as np\nnp.load(f, allow_pickle=True)", "eval(text)",
    "exec(compile(text, 'a', 'exec'))", "import yaml\nyaml.load(text, yaml.Loader)",
    "import yaml\nyaml.load(text)", "import yaml\nyaml.unsafe_load(text)", "archive.extractall(folder)",
    "AutoModel.from_pretrained(x, trust_remote_code=True, use_safetensors=True)",
    "AutoModelForCausalLM.from_pretrained(x, trust_remote_code=False)",
    "AutoTokenizer.from_pretrained(x)", "kind.from_config(c)", "PeftModel.from_pretrained(m, x)",
    "pipeline(x, trust_remote_code=asked)",
]  # fmt: skip


@pytest.mark.parametrize("source", BANNED)
def test_the_check_finds_each_kind(source: str) -> None:
    assert list(problems(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load(f, map_location='cpu', weights_only=True)",
        "import json\njson.load(f)",
        "import yaml\nyaml.safe_load(f)",
        "import re\nre.compile(text)",
        "AutoModelForCausalLM.from_pretrained(x, use_safetensors=True, trust_remote_code=False)",
    ],
)
def test_the_check_lets_safe_loading_pass(source: str) -> None:
    assert list(problems(ast.parse(source))) == []
