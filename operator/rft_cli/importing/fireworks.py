"""Converts a reinforcement fine-tuning job of Fireworks to an RFTJob.

The input is a command line of firectl or ep, or JSON of Fireworks' API.
"""

import ast
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rft_api.ahead import model_problem
from rft_api.cel import words
from rft_api.meant import boolean, fold, number
from rft_cli.importing.openai import add_rows
from rft_cli.importing.result import Draft, ImportProblem, Options, label, put, rows_of

_COMMAND = re.compile(r"^\s*(?:\$\s*)?(?:firectl|ep|eval-protocol)\s", re.MULTILINE)
_SWITCHES = words("yes y force dryrun quiet wait o output a accountid apikey profile skipvalidation")
"""Options of the commands firectl and ep that do not describe the job, such as ``--yes``.

The names are written as ``fold`` returns them: in lower case, without dashes."""
_GROUPS = ("trainingConfig", "inferenceParameters", "lossConfig", "wandbConfig")
_OF_A_RESULT = words(
    "name createtime completedtime createdby state status updatetime outputstats outputmetrics"
    " jobprogress trainerlogssignedurl estimatedcost"
)
"""Fields that Fireworks adds to a job, such as its state. The names are in lower case, without dashes, as
``fold`` returns them."""
_OBJECTIVES = {"grpo": "grpo", "dapo": "dapo", "gspo": "gspo", "gspotoken": "gspo", "cispo": "cispo"}
_WEIGHTS = {
    "llama": "meta-llama/Llama-{}-{}",
    "qwen": "Qwen/Qwen{}-{}",
}


def is_command(text: str) -> bool:
    """Return whether a line of the text is a command of firectl, ep or eval-protocol, Fireworks' tools."""
    return _COMMAND.search(text) is not None


def is_job(body: Mapping[str, Any]) -> bool:
    """Return whether a JSON object has the fields of a fine-tuning job of Fireworks' API."""
    return "evaluator" in body and bool({"trainingConfig", "inferenceParameters", "dataset"} & set(body))


def read_command(text: str, options: Options) -> Draft:
    """Convert the job that a command line of firectl or ep creates to an RFTJob. Return its draft: manifest,
    files and notes.

    Raises:
        ImportProblem: if the command line cannot be read, creates another kind of job, or lacks what an
            RFTJob needs.
    """
    match = _COMMAND.search(text)
    assert match is not None
    line = re.sub(r"\\\s*\n", " ", text[match.start() :]).strip().splitlines()[0].lstrip("$ ")
    try:
        given = shlex.split(line)
    except ValueError as error:
        raise ImportProblem(f"the command line cannot be read: {error}; are its quotes closed?") from error
    verbs = [word for word in given[1:5] if not word.startswith("-")]
    if not any(re.search("reinforcement|rft|rlor", verb) for verb in verbs):
        raise ImportProblem(
            f"{' '.join(given[:4])}: this command does not create a reinforcement fine-tuning job"
        )
    return read(dict(_flags(given)), options)


def _flags(given: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield the name and the value of each option in the words of a command line.

    An option is ``--name value`` or ``--name=value``. The value of ``--name`` alone is True.
    """
    for i, word in enumerate(given):
        if not word.startswith("-") or number(word, whole=False) is not None:
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if equals:
            yield name, value
        elif i + 1 < len(given) and (
            not given[i + 1].startswith("-") or number(given[i + 1], whole=False) is not None
        ):
            yield name, given[i + 1]
        else:
            yield name, True


def flattened(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of ``body``, a job in the JSON of Fireworks' API, as a flat object.

    Fields of groups such as ``trainingConfig`` are put beside the job's own fields. Fields without a value,
    and fields that Fireworks adds to a job, such as its state, are left out.
    """
    fields = {key: value for key, value in body.items() if key not in _GROUPS}
    for group in _GROUPS:
        inner = body.get(group)
        if isinstance(inner, dict):
            prefix = "wandb-" if group == "wandbConfig" else ""
            fields |= {f"{prefix}{key}": value for key, value in inner.items()}
    return {
        key: value
        for key, value in fields.items()
        if fold(key) not in _OF_A_RESULT and value not in (None, "", {}, [], "METHOD_UNSPECIFIED")
    }


def read(fields: Mapping[str, Any], options: Options) -> Draft:
    """Convert a job of Fireworks to an RFTJob. Return its draft: manifest, files and notes.

    ``fields`` has the values of the job's fields, by their names in the command line or in the API.

    Raises:
        ImportProblem: if the model has no known hub id, or the evaluator's code is not given, cannot be read
            or has no function that scores.
    """
    draft = Draft("fireworks")
    given = {fold(key): (key, value) for key, value in fields.items()}
    _add_model(draft, given, options)
    dataset = given.get("datasetjsonl") or given.get("dataset")
    rows = options.rows or (options.path(str(dataset[1])) if dataset and "datasetjsonl" in given else None)
    add_rows(draft, dataset[1] if dataset else None, "dataset", rows)
    _add_evaluator(draft, given, options)
    for key, (name, value) in given.items():
        if key not in ("basemodel", "dataset", "datasetjsonl", "evaluator", "outputmodel", *_SWITCHES):
            _carry(draft, key, name, value, options)
    wanted = given.get("outputmodel") or given.get("displayname")
    draft.name = (label(str(wanted[1])) if wanted else "") or draft.name
    return draft


def _carry(draft: Draft, key: str, name: str, value: Any, options: Options) -> None:
    if key == "evaluationdataset":
        _add_evaluation(draft, value, options)
    elif key in ("rllossmethod", "method"):
        objective = _OBJECTIVES.get(fold(str(value)))
        if objective:
            draft.set("spec.training.objective", objective, name)
        elif str(value).lower() not in ("default", "unspecified"):
            draft.note(name, value, f"objectives are {', '.join(sorted(set(_OBJECTIVES.values())))}")
    elif key == "evalautocarveout":
        if boolean(value) == "false" or value is False:
            put(draft.spec, "evaluation.fraction", 0)
    elif key in ("wandbproject", "wandbentity"):
        put(draft.spec, f"tracking.wandb.{key.removeprefix('wandb')}", str(value))
        put(draft.spec, "tracking.wandb.secretRef", {"name": "wandb", "key": "api-key"})
    elif "key" in key.removeprefix("wandb"):
        draft.carry(name, "(not shown)")
    else:
        read_number = number(value, whole=False) if isinstance(value, str) else None
        draft.carry(name, value if read_number is None else read_number)


def _add_evaluation(draft: Draft, value: Any, options: Options) -> None:
    if options.evaluation_rows is not None:
        put(draft.spec, "evaluation.dataset", rows_of(options.evaluation_rows))
    else:
        done = (
            "is not used: a part of the training rows is held out instead; to use this dataset, import again"
            " with --evaluation-rows FILE"
        )
        draft.note("evaluation-dataset", value, done)


def _add_model(draft: Draft, given: Mapping[str, tuple[str, Any]], options: Options) -> None:
    written = str(given["basemodel"][1]) if "basemodel" in given else None
    name = options.model or (hub_id(written) if written else None)
    if name is None or model_problem(name):
        said = f"base-model {written!r} has no known hub id" if written else "no base-model is given"
        raise ImportProblem(f"{said}; add --model with one, such as --model Qwen/Qwen2.5-7B-Instruct")
    draft.spec["model"] = {"name": name}
    if written is not None and name != written:
        draft.note("base-model", written, f"is {name} on the hub; add --model to train another model")


def hub_id(name: str) -> str | None:
    """Return the id on the Hugging Face hub for a model's name at Fireworks: for llama-v3p1-8b-instruct,
    return meta-llama/Llama-3.1-8B-Instruct.

    Only the form of the name is used: names of Llama and Qwen models in Fireworks' catalogue are converted.
    A name of the form ``OWNER/NAME`` is a hub id already, and is returned unchanged. For any other name, such
    as a model of the user's own Fireworks account, return None.
    """
    if re.fullmatch(r"[^/]+/[^/]+", name):
        return name
    own = name.removeprefix("accounts/fireworks/models/").lower()
    found = re.fullmatch(r"(llama|qwen)-?v?(\d+(?:p\d+)?)-([^/]+)", own)
    if found is None:
        return None
    version = found[2].replace("p", ".")
    parts = [
        part.replace("p", ".").upper() if re.fullmatch(r"a?\d+(p\d+)?b", part) else part.capitalize()
        for part in found[3].split("-")
    ]
    return _WEIGHTS[found[1]].format(version, "-".join(parts))


def _add_evaluator(draft: Draft, given: Mapping[str, tuple[str, Any]], options: Options) -> None:
    evaluator = str(given["evaluator"][1]) if "evaluator" in given else None
    if options.evaluator is None:
        raise ImportProblem(
            f"evaluator {evaluator or 'is not set'}: its code is not in this file; add --evaluator with its"
            " Python file, such as --evaluator evaluator/main.py"
        )
    source = Path(options.evaluator).expanduser()
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ImportProblem(f"--evaluator {source}: cannot be read: {error}") from error
    function = reward_function(text)
    if function is None:
        raise ImportProblem(
            f"--evaluator {source}: has no function evaluate, nor one with the decorator reward_function or"
            " evaluation_test"
        )
    draft.files[source.name] = text
    python = {"file": source.name, **({} if function == "grade" else {"function": function})}
    draft.graders.append({"name": draft.unique_name(evaluator or source.stem), "python": python})


def reward_function(source: str) -> str | None:
    """Find the function that scores completions in the Python source of a Fireworks evaluator. Return its
    name.

    Return None if the source is not valid Python, or if it is not clear which function scores. The source is
    parsed, and never run.
    """
    try:
        tree = ast.parse(source.removeprefix("\ufeff"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    functions = [each for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    for each in functions:
        decorators = {ast.unparse(d).partition("(")[0].rpartition(".")[2] for d in each.decorator_list}
        if decorators & {"reward_function", "evaluation_test"}:
            return each.name
    names = [each.name for each in functions]
    known = ("evaluate", "grade", "reward", "reward_fn", "compute_score")
    return next((name for name in known if name in names), names[0] if len(names) == 1 else None)
