"""Converts a script that trains with TRL's GRPOTrainer to an RFTJob. The script is parsed, and never run."""

import ast
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from rft_api.ahead import model_problem
from rft_cli.importing.result import Draft, ImportProblem, Options, label, put, rows_of

DEFAULTS: Mapping[str, Any] = {
    "num_generations": 8,
    "max_completion_length": 256,
    "temperature": 1.0,
    "top_k": 0,
    "beta": 0.0,
    "num_train_epochs": 3,
}
"""Defaults of TRL's GRPOConfig that differ from those of an RFTJob. They apply if a script does not set these
fields."""
_OBJECTIVES = {"grpo": "grpo", "bnpo": "grpo", "dapo": "dapo", "dr_grpo": "drGrpo", "cispo": "cispo"}
_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
_READY_MADE: Mapping[str, dict[str, Any]] = {
    "accuracy_reward": {"math": {"field": "solution"}},
    "think_format_reward": {
        "regex": {"pattern": r"(?s)<think>(?!.*<think>).*?</think>.*", "fullMatch": True}
    },
}
"""The grader of an RFTJob for each reward function that is part of TRL, by the function's name."""
_TRAINERS = ("GRPOTrainer", "GRPOConfig", "LoraConfig")
_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Script(NamedTuple):
    """A Python script: its source and its syntax tree."""

    source: str
    tree: ast.Module

    def calls(self, name: str) -> list[ast.Call]:
        """Return all calls in the script of functions, methods and classes with this name."""
        return [
            node
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == name
        ]

    def assigned(self, name: str) -> ast.expr | None:
        """Return the expression that the script's last assignment gives to the variable ``name``.

        Return None if the script does not assign to this variable.
        """
        found = [
            node.value
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Assign)
            and any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
        ]
        return found[-1] if found else None

    def resolved(self, node: ast.expr | None) -> ast.expr | None:
        """Replace a variable by its value: if ``node`` is a name, return the expression that the script
        assigns to this name. Return any other ``node`` unchanged.
        """
        seen = 0
        while isinstance(node, ast.Name) and seen < 5 and (value := self.assigned(node.id)) is not None:
            node, seen = value, seen + 1
        return node

    def literal(self, node: ast.expr | None) -> Any:
        """Return the value of the expression ``node``, such as 3 for ``3``, without running the script. A
        variable has the value that the script assigns to it.

        Raises ValueError if ``node`` is None. Raises ValueError, TypeError or SyntaxError if the value is
        known only when the script runs.
        """
        node = self.resolved(node)
        if node is None:
            raise ValueError("there is no expression")
        return ast.literal_eval(node)


def is_script(text: str) -> bool:
    """Return whether a text names TRL's GRPOConfig or GRPOTrainer. Such a text is read as a Python script."""
    return any(name in text for name in ("GRPOConfig", "GRPOTrainer"))


def read(text: str, options: Options) -> Draft:
    """Convert the training in the Python script ``text`` to an RFTJob. Return its draft: manifest, files and
    notes.

    Raises:
        ImportProblem: if the script is not valid Python, or does not name a model or a reward function that
            can be imported.
    """
    try:
        script = Script(text, ast.parse(text.removeprefix("\ufeff")))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ImportProblem(f"the script is not valid Python: {error}") from error
    draft = Draft("trl")
    config = _arguments(script, "GRPOConfig")
    trainer = _arguments(script, "GRPOTrainer")
    if not config and not trainer:
        raise ImportProblem("the script makes neither a GRPOConfig nor a GRPOTrainer")
    _add_model(draft, script, trainer, options)
    _add_rows(draft, script, trainer, options)
    weights = _add_config(draft, script, config)
    for name, node in _arguments(script, "LoraConfig").items():
        _add_lora(draft, script, name, node)
    if not script.calls("LoraConfig"):
        draft.note(
            "peft_config",
            "is not set",
            "an RFTJob trains a LoRA adapter, here of rank 8; the script trains all weights of the model",
        )
    _add_rewards(draft, script, trainer.get("reward_funcs"), weights)
    for name, node in trainer.items():
        if name not in ("model", "args", "reward_funcs", "train_dataset", "eval_dataset", "peft_config"):
            draft.carry(name, ast.unparse(node))
    return draft


def _arguments(script: Script, name: str) -> dict[str, ast.expr]:
    """Return the arguments of the script's last call of the class ``name``, by the arguments' names.

    Return {} if the script does not call the class.
    """
    calls = script.calls(name)
    if not calls:
        return {}
    call = calls[-1]
    first = {"GRPOTrainer": ("model", "reward_funcs", "args"), "GRPOConfig": ("output_dir",)}.get(name, ())
    found = dict(zip(first, call.args, strict=False))
    return found | {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg is not None}


def _add_model(draft: Draft, script: Script, trainer: Mapping[str, ast.expr], options: Options) -> None:
    node = script.resolved(trainer.get("model"))
    if isinstance(node, ast.Call) and node.args:  # AutoModelForCausalLM.from_pretrained(name)
        node = node.args[0]
    try:
        written = script.literal(node)
    except (ValueError, TypeError, SyntaxError):
        written = ast.unparse(node) if node is not None else None
    name = options.model or written
    if not isinstance(name, str) or model_problem(name):
        raise ImportProblem(
            f"model {written or 'is not set'}: cannot be read without running the script;"
            " add --model with a hub id"
        )
    draft.spec["model"] = {"name": name}
    if name != written:
        draft.note("model", written or "is not set", f"{name} is trained")


def _add_rows(draft: Draft, script: Script, trainer: Mapping[str, ast.expr], options: Options) -> None:
    call = script.resolved(trainer.get("train_dataset"))
    named = _data_file(script, call)
    file = options.rows or (options.path(named) if named is not None else None)
    draft.spec["dataset"] = rows_of(file or "./rows.jsonl")
    if file is None:
        given = ast.unparse(call) if call is not None else "is not set"
        done = (
            "spec.dataset names rows.jsonl in the manifest's folder: put your rows there, or import again"
            " with --rows FILE; the import does not rename columns"
        )
        draft.note("train_dataset", given, done)
    elif options.rows is None and isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
        done = (
            "the rows of the data file are used as they are, and methods such as map are not called; to use"
            " changed rows, write them into a file, and import again with --rows FILE"
        )
        draft.note("train_dataset", ast.unparse(call), done)
    if options.evaluation_rows is not None:
        put(draft.spec, "evaluation.dataset", rows_of(options.evaluation_rows))
    elif "eval_dataset" in trainer:
        draft.note(
            "eval_dataset",
            ast.unparse(trainer["eval_dataset"]),
            "is not used: a part of the training rows is held out instead; to use this dataset, import again"
            " with --evaluation-rows FILE",
        )


def _data_file(script: Script, node: ast.expr | None) -> str | None:
    """Return the path or URL of the file that a call such as ``load_dataset("json", data_files=...)`` reads.

    ``node``: the expression of a dataset in the script. Calls of its methods, such as ``map``, are ignored.
    Return None for any other expression, and for several files.
    """
    seen: list[ast.expr] = []
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node not in seen:
        seen.append(node)  # dataset = dataset.map(f) would otherwise be resolved for ever
        node = script.resolved(node.func.value)  # the dataset on which a method such as map is called
    if not isinstance(node, ast.Call) or ast.unparse(node.func).rpartition(".")[2] != "load_dataset":
        return None
    files = next((each.value for each in node.keywords if each.arg == "data_files"), None)
    try:
        found = script.literal(files)
    except (ValueError, TypeError, SyntaxError):
        return None
    found = found.get("train") if isinstance(found, dict) else found
    found = found[0] if isinstance(found, list) and len(found) == 1 else found
    return found if isinstance(found, str) else None


def _add_config(draft: Draft, script: Script, config: Mapping[str, ast.expr]) -> list[float] | None:
    """Copy the fields of TRL's GRPOConfig into the draft of the RFTJob. Fields that the script does not set
    get TRL's defaults, if these differ from the defaults of an RFTJob.

    Return the list in the field ``reward_weights``, or None if there is no such list.
    """
    weights = None
    for name, value in DEFAULTS.items():
        if name not in config:
            draft.carry(name, value)
    absent = ", ".join(f"{name} {value}" for name, value in DEFAULTS.items() if name not in config)
    if absent:
        draft.note("GRPOConfig", absent, "are TRL's defaults, which differ from ours; the manifest sets them")
    for name, node in config.items():
        try:
            value = script.literal(node)
        except (ValueError, TypeError, SyntaxError):
            draft.note(name, ast.unparse(node), "is left out: its value is known only when the script runs")
            continue
        if name == "reward_weights":
            weights = _weights(draft, value)
        else:
            _set(draft, name, value, _add_setting)
    return weights


def _weights(draft: Draft, value: Any) -> list[float] | None:
    """Return the value of ``reward_weights``, or None with a note if it is not a list of numbers."""
    weights = list(value) if isinstance(value, list | tuple) else None
    if weights is None or not all(type(each) in (int, float) and math.isfinite(each) for each in weights):
        if value is not None:
            draft.note("reward_weights", value, "is left out: it is not a list of numbers")
        return None
    return weights


def _set(draft: Draft, name: str, value: Any, add: Callable[[Draft, str, Any], None]) -> None:
    """Copy the setting ``name`` into the draft by ``add``. Leave out a value of a wrong type, with a note."""
    try:
        add(draft, name, value)
    except (TypeError, ValueError, AttributeError, OverflowError):
        draft.note(name, value, "is left out: the value has a wrong type")


def _add_setting(draft: Draft, name: str, value: Any) -> None:
    if value is None:
        return
    if name == "loss_type":
        objective = _OBJECTIVES.get(value)
        if objective is None:
            draft.note(name, value, f"objectives are {', '.join(sorted(set(_OBJECTIVES.values())))}")
        else:
            draft.set("spec.training.objective", objective, name)
    elif name == "importance_sampling_level" and value == "sequence":
        draft.set("spec.training.objective", "gspo", name)
    elif name == "run_name":
        draft.name = label(value) or draft.name
    elif name == "max_steps":
        if value > 0:
            put(draft.spec, "stop.maxSteps", value)
    elif name == "top_k" and value < 0:
        draft.carry(name, 0)
    else:
        draft.carry(name, value)


def _add_lora(draft: Draft, script: Script, name: str, node: ast.expr) -> None:
    """Copy the field ``name`` of PEFT's LoraConfig into the draft of the RFTJob. ``node``: the expression of
    its value. A field with the value None is left out.
    """
    try:
        value = script.literal(node)
    except (ValueError, TypeError, SyntaxError):
        draft.note(name, ast.unparse(node), "is left out: its value is known only when the script runs")
        return
    _set(draft, name, value, _add_lora_setting)


def _add_lora_setting(draft: Draft, name: str, value: Any) -> None:
    if value is None:
        return
    if name != "target_modules" or value == "all-linear":
        draft.carry(name, value)
        return
    modules = {value} if isinstance(value, str) else set(value)
    attention = modules <= _ATTENTION
    draft.set("spec.training.loraTargets", "attention" if attention else "all-linear", name)
    if modules != _ATTENTION:
        done = "allowed are all linear layers, or all linear layers of the attention"
        draft.note(
            name, value, f"spec.training.loraTargets is {'attention' if attention else 'all-linear'}: {done}"
        )


def _add_rewards(draft: Draft, script: Script, node: ast.expr | None, weights: list[float] | None) -> None:
    if node is None:
        raise ImportProblem("reward_funcs is not set; a job needs a grader")
    node = script.resolved(node) if not _is_function(script, node) else node
    functions = node.elts if isinstance(node, ast.List | ast.Tuple) else [node] if node is not None else []
    for i, each in enumerate(functions):
        weight = weights[i] if weights is not None and i < len(weights) else 1.0
        _add_reward(draft, script, each, weight)
    if not draft.graders:
        raise ImportProblem(
            "no reward function of the script could be imported; write them as graders in the manifest:\n  "
            + "\n  ".join(map(str, draft.notes))
        )
    if len(draft.graders) > 1:
        draft.note(
            "reward_funcs",
            len(draft.graders),
            "the reward of an RFTJob is the weighted mean of the scores; TRL's reward is their weighted sum",
        )


def _is_function(script: Script, node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and _definition(script, node.id) is not None


def _definition(script: Script, name: str) -> _Function | None:
    found = [each for each in script.tree.body if isinstance(each, _Function) and each.name == name]
    return found[-1] if found else None


def _add_reward(draft: Draft, script: Script, node: ast.expr, weight: float) -> None:
    written = ast.unparse(node)
    name = written.rpartition(".")[2]
    function = _definition(script, name) if isinstance(node, ast.Name) else None
    if weight < 0:
        draft.note(
            written,
            weight,
            "is left out, because a weight must be at least 0; to use the function, let it return 1 minus its"
            " score, and import again with a positive weight",
        )
        return
    if function is not None:
        file = f"{name}.py"
        draft.files[file] = extracted(script, function)
        if _reads_texts(script, function):
            done = (
                "its code does not read the content of messages, so the import added the annotation list[str]"
                " to the parameter completions of the copied function, which then gets texts"
            )
            draft.note(name, "completions", done)
        made: dict[str, Any] = {"name": draft.unique_name(name), "python": {"file": file, "function": name}}
        low, high = _range(function)
        if (low, high) != (0, 1):
            made["scale"] = {"min": low, "max": high, "clip": True}
            weight *= high - low
            done = (
                f"by the numbers in its code, its scores are from {low:g} to {high:g}, so the import set the"
                " grader's scale, which maps this range onto 0 to 1; check the range in the function"
            )
            draft.note(name, "", done)
    elif name in _READY_MADE:
        made = {"name": draft.unique_name(name), **_READY_MADE[name]}
        draft.note(written, "", f"is the grader {next(iter(_READY_MADE[name]))}")
    else:
        draft.note(
            "reward_funcs",
            written,
            "is neither a function of the script nor a reward of TRL that the import knows; write a python or"
            " model grader for it",
        )
        return
    if weight != 1:
        made["weight"] = weight
    draft.graders.append(made)


def _range(function: _Function) -> tuple[float, float]:
    """Guess the range of a reward function's scores from the numbers in its code. Return the lowest and the
    highest score.

    Only the numbers in conditional expressions, in returned lists and in arguments of ``append`` count,
    because scores are usually there. The range always includes 0 and 1.
    """
    values = [0.0, 1.0]
    for node in ast.walk(function):
        scores: list[ast.expr] = []
        if isinstance(node, ast.IfExp):
            scores = [node.body, node.orelse]
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.List):
            scores = node.value.elts
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".append"):
            scores = node.args
        for each in scores:
            try:
                value = ast.literal_eval(each)
            except (ValueError, TypeError, SyntaxError):
                continue
            if isinstance(value, int | float) and not isinstance(value, bool):
                values.append(float(value))
    return min(values), max(values)


def extracted(script: Script, function: _Function) -> str:
    """Return Python source for the file of a grader: a reward function, with the imports, constants and
    functions of the script that this function needs.

    Other statements of the script are left out, because a grader's file is executed when it is loaded.
    """
    texts = [
        _annotated(script, function)
        if each is function and _reads_texts(script, function)
        else _source(script, each)
        for each in _needed(script, function)
    ]
    return "\n\n".join(texts) + "\n"


def _needed(script: Script, function: _Function) -> list[ast.stmt]:
    """Return the statements that a grader's file needs to define ``function``, in the order of the script:
    its definition, and the imports, assignments and definitions whose names it uses, directly or indirectly.
    Statements for which ``_is_quiet`` is false are left out.
    """
    needed: list[ast.stmt] = [function]
    pending: list[ast.stmt] = [function]
    while pending:
        for name in sorted(_names(pending.pop())):
            for each in script.tree.body:
                if each not in needed and name in _bound(each) and _is_quiet(each):
                    needed.append(each)
                    pending.append(each)
    return [each for each in script.tree.body if each in needed]


def _completions(function: _Function) -> ast.arg | None:
    """Return the parameter ``completions`` of a function, or None if it is absent or has an annotation."""
    arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    return next((each for each in arguments if each.arg == "completions" and each.annotation is None), None)


def _reads_texts(script: Script, function: _Function) -> bool:
    """Return whether a reward function expects completions as texts, but its parameter ``completions`` has no
    annotation that says so.

    TRL passes texts if the prompts are texts. Otherwise it passes messages, whose text is under the key
    content. So a function that does not use this key expects texts. The python grader of an RFTJob passes
    texts to a function only if the parameter has an annotation such as ``list[str]``.
    """
    nodes = (node for statement in _needed(script, function) for node in ast.walk(statement))
    constants = {node.value for node in nodes if isinstance(node, ast.Constant)}
    return _completions(function) is not None and "content" not in constants


def _annotated(script: Script, function: _Function) -> str:
    """Return the source of a function in which the parameter ``completions`` has the annotation
    ``list[str]``. In the script, this parameter has no annotation.
    """
    parameter = _completions(function)
    assert parameter is not None
    assert parameter.end_lineno is not None
    assert parameter.end_col_offset is not None
    lines = script.source.removeprefix("\ufeff").splitlines()
    line = lines[parameter.end_lineno - 1].encode()
    at = parameter.end_col_offset
    lines[parameter.end_lineno - 1] = (line[:at] + b": list[str]" + line[at:]).decode()
    return _source(Script("\n".join(lines), script.tree), function)


def _source(script: Script, node: ast.stmt) -> str:
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    return "\n".join(script.source.removeprefix("\ufeff").splitlines()[first - 1 : node.end_lineno])


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _bound(node: ast.stmt) -> set[str]:
    """Return the names that a statement at the top level of a module defines: the name of a function or
    class, the imported names, or the assigned variables.
    """
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    targets: Iterator[ast.expr] = iter(())
    if isinstance(node, ast.Assign):
        targets = iter(node.targets)
    elif isinstance(node, ast.AnnAssign):
        targets = iter([node.target])
    return {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}


def _is_quiet(node: ast.stmt) -> bool:
    """Return whether a statement of the script can be copied into a grader's file, which is executed when it
    is loaded. This is true if the statement loads no dataset and no model, and starts no training.

    Definitions of functions and classes can always be copied.
    """
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return True
    text = ast.unparse(node)
    return not any(word in text for word in (*_TRAINERS, "load_dataset", "from_pretrained", "trl"))
