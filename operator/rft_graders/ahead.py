"""Finds mistakes in a job's graders before the run. Users' code is parsed, but not run."""

import ast
import inspect
import json
import re
import warnings
from collections.abc import Iterator, Mapping

from rft_api.environment import ENVIRONMENT
from rft_api.graders import DEFAULT_FUNCTION, Grader
from rft_api.job import RFTJobSpec
from rft_api.problems import Problem
from rft_graders.formula import formula_problem
from rft_graders.shapes import SHAPES, CallShape, shape_of
from rft_graders.template import TemplateProblem, parts, root_of

_DYNAMIC = frozenset(("globals", "exec", "vars", "locals", "setattr", "__import__"))
"""Python functions that can define a name which the syntax tree of a source file does not show."""


def problems(spec: RFTJobSpec, code: Mapping[str, str]) -> list[Problem]:
    """Return the problems of all graders and of the environment.

    ``code`` maps a grader's name to its source, for graders whose source is in a ConfigMap.
    """
    found = [each for i, grader in enumerate(spec.graders) for each in _problems(grader, i, code)]
    formulas = ((i, formula_problem(spec.graders, i)) for i in range(len(spec.graders)))
    found += [Problem(f"spec.graders[{i}].formula.expression", said) for i, said in formulas if said]
    if spec.environment is not None:
        python = spec.environment.python
        source = python.inline if python.inline is not None else code.get(ENVIRONMENT)
        if source is not None and (said := environment_problem(source, python.class_name)):
            found.append(Problem("spec.environment.python", said))
    return found


def _problems(grader: Grader, index: int, code: Mapping[str, str]) -> Iterator[Problem]:
    path = f"spec.graders[{index}]"
    if grader.regex is not None and (said := pattern_problem(grader.regex.pattern)):
        yield Problem(f"{path}.regex.pattern", said)
    if grader.json_schema is not None and (said := schema_problem(grader.json_schema.schema_text)):
        yield Problem(f"{path}.jsonSchema.schema", said)
    if grader.model is not None and (said := template_problem(grader.model.prompt)):
        yield Problem(f"{path}.model.prompt", said)
    for field, template in templates(grader).items():
        try:
            parts(template)
        except TemplateProblem as error:
            yield Problem(f"{path}.{field}", str(error))
    if grader.python is not None:
        source = grader.python.inline if grader.python.inline is not None else code.get(grader.name)
        if source is not None and (said := code_problem(source, grader.python.function)):
            yield Problem(f"{path}.python", said)


def templates(grader: Grader) -> dict[str, str]:
    """Return the templates of a stringCheck or textSimilarity grader, by path. A path is for example
    ``stringCheck.input``.
    """
    kinds = {"stringCheck": grader.string_check, "textSimilarity": grader.text_similarity}
    return {
        f"{kind}.{name}": text
        for kind, settings in kinds.items()
        if settings is not None
        for name, text in (("input", settings.input), ("reference", settings.reference))
        if text is not None
    }


def pattern_problem(pattern: str) -> str:
    """Return what is wrong with a regular expression: it is not valid, or it is surely a mistake. Return ""
    if nothing is wrong.
    """
    if "\b" in pattern:
        return (
            "the pattern contains a backspace character, because YAML reads \\b in double quotes as one;"
            " write the pattern in single quotes"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        fix = "put a backslash before a character that is meant literally"
        return f"{pattern!r:.80} is not a valid Python regular expression: {error}; {fix}"
    return ""


def schema_problem(text: str) -> str:
    """Return why a text is not a valid JSON schema, or "" if it is valid.

    Without the library jsonschema, this only checks that the text is JSON.
    """
    try:
        from rft_graders.json_schema import SchemaProblem, validator
    except ImportError:  # the operator's image needs no jsonschema
        try:
            json.loads(text)
        except (ValueError, RecursionError) as error:
            return f"the schema is not JSON: {error}"
        return ""
    try:
        validator(text)
    except SchemaProblem as error:
        return str(error)
    return ""


def template_problem(text: str) -> str:
    """Return why the prompt template of a judge cannot be used; "" if it can be used."""
    try:
        fields = [root_of(field) for _, field in parts(text) if field is not None]
    except TemplateProblem as error:
        return str(error)
    if not {"completion", "completion_json"} & set(fields):
        return "{completion} is missing, so the judge would not see the text that it scores; add {completion}"
    return ""


def code_problem(source: str, function: str) -> str:
    """Return why the function ``function`` in Python source cannot be a grader, or "" if no reason is found.

    The source is only parsed. Errors that appear only when the code runs are not found.
    """
    tree = _parsed(source)
    if isinstance(tree, str):
        return tree
    bound = list(_bindings(tree, function))
    if not bound:
        defined = [
            each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        names = f"; it defines {', '.join(defined)}: write function: {defined[-1]}" if defined else ""
        return "" if _may_define_more(tree) else f"the source defines no function {function}{names}"
    last = bound[-1]
    if len(bound) > 1 or not isinstance(last, ast.FunctionDef | ast.AsyncFunctionDef) or last.decorator_list:
        return ""  # only running the code would show whether it is a grader
    return _call_problem(last)


def options_of(source: str, function: str) -> frozenset[str]:
    """Return the parameters of a grader's function that keep their default, whatever fields a row has.

    The source is only parsed. The result is empty if the function cannot be found, or gets all fields of the
    row by their names, as TRL's reward functions do.
    """
    parameters, shape = _called(source, function)
    if shape is not None and shape.columns:
        return frozenset()
    with_default = {name for name, each in parameters.items() if each.default is not inspect.Parameter.empty}
    return frozenset(with_default - (shape.names if shape is not None else frozenset()))


def row_parameter_of(source: str, function: str) -> str | None:
    """Return the name of the parameter that gets the whole row if the rows have no field of its name.

    It is the second parameter of a function such as ``grade(completion, answer)``. The source is only parsed.
    Return None if there is no such parameter, or if the function cannot be found.
    """
    parameters, shape = _called(source, function)
    required = [name for name, each in parameters.items() if each.default is inspect.Parameter.empty]
    is_of_fields = shape is not None and shape not in SHAPES
    return required[1] if is_of_fields and len(required) == 2 and required[1] != "row" else None


def _called(source: str, function: str) -> tuple[Mapping[str, inspect.Parameter], CallShape | None]:
    """Return the parameters of a grader's function, and its call shape, or ({}, None) if it is not found."""
    tree = _parsed(source)
    bound = [] if isinstance(tree, str) else list(_bindings(tree, function))
    if len(bound) != 1 or not isinstance(bound[0], ast.FunctionDef | ast.AsyncFunctionDef):
        return {}, None
    parameters = signature_of(bound[0].args).parameters
    try:
        return parameters, shape_of(parameters, function)
    except TypeError:
        return {}, None


def likely_grader(source: str) -> str | None:
    """Return the name of the function in Python source that is most likely the grader.

    It is ``grade`` if the source defines this name. Otherwise it is the last function without an underscore
    at the beginning of its name that can be called as a grader. Return ``None`` if there is none.
    """
    tree = _parsed(source)
    if isinstance(tree, str):
        return None
    functions = [each.name for each in tree.body if isinstance(each, ast.FunctionDef)]
    names = [name for name in functions if not name.startswith("_") and not code_problem(source, name)]
    if any(True for _ in _bindings(tree, DEFAULT_FUNCTION)):
        return DEFAULT_FUNCTION
    return names[-1] if names else None


def environment_problem(source: str, name: str) -> str:
    """Return why the class ``name`` in Python source cannot be an environment, or "" if no reason is found.

    The source is only parsed. Errors that appear only when the code runs are not found.
    """
    tree = _parsed(source)
    if isinstance(tree, str):
        return tree
    bound = list(_bindings(tree, name))
    if not bound and not _may_define_more(tree):
        defined = [each.name for each in tree.body if isinstance(each, ast.ClassDef)]
        names = f"; it defines {', '.join(defined)}: set className to one of them" if defined else ""
        return f"the source defines no class {name}{names}"
    if len(bound) == 1 and isinstance(bound[0], ast.FunctionDef | ast.AsyncFunctionDef):
        return f"{name} is a function, not a class with reset and get_reward"
    return ""


def _parsed(source: str) -> ast.Module | str:
    """Return the syntax tree of Python source, or an error message if the source is not valid."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source.removeprefix("\ufeff"))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f" (line {error.lineno})" if isinstance(error, SyntaxError) and error.lineno else ""
        said = error.msg if isinstance(error, SyntaxError) else error
        return f"the source is not valid Python{line}: {said}"


def _call_problem(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    try:
        shape_of(signature_of(function.args).parameters, function.name)
    except TypeError as error:
        return str(error)
    return ""


def signature_of(arguments: ast.arguments) -> inspect.Signature:
    """Return a function's signature from its syntax tree. Every default value in it is ``...``."""
    kind = inspect.Parameter
    positional = [
        *((each.arg, kind.POSITIONAL_ONLY) for each in arguments.posonlyargs),
        *((each.arg, kind.POSITIONAL_OR_KEYWORD) for each in arguments.args),
    ]
    without = len(positional) - len(arguments.defaults)
    found = [
        kind(name, how, default=kind.empty if i < without else ...)
        for i, (name, how) in enumerate(positional)
    ]
    if arguments.vararg is not None:
        found.append(kind(arguments.vararg.arg, kind.VAR_POSITIONAL))
    for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found.append(kind(each.arg, kind.KEYWORD_ONLY, default=kind.empty if default is None else ...))
    if arguments.kwarg is not None:
        found.append(kind(arguments.kwarg.arg, kind.VAR_KEYWORD))
    return inspect.Signature(found)


def _bindings(tree: ast.Module, name: str) -> Iterator[ast.AST]:
    """Yield the syntax nodes that may define ``name`` in a module, such as functions and assignments.

    Some of them define a local variable of a function instead.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            is_method = node not in tree.body and not _outside_functions(tree, node)
            if node.name == name and not is_method:
                yield node
        elif name in _names_bound(node):
            yield node


def _names_bound(node: ast.AST) -> list[str]:
    """Return the names that a syntax node assigns, imports or declares global."""
    if isinstance(node, ast.Name):
        return [node.id] if isinstance(node.ctx, ast.Store) else []
    if isinstance(node, ast.alias):
        return [node.asname or node.name.partition(".")[0]]
    return node.names if isinstance(node, ast.Global) else []


def _outside_functions(tree: ast.Module, wanted: ast.AST) -> bool:
    """Return whether the syntax node ``wanted`` of a module is outside all functions and classes. It may be
    inside an if or a for.
    """
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if node is wanted:
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            pending += ast.iter_child_nodes(node)
    return False


def _may_define_more(tree: ast.Module) -> bool:
    """Return whether a source may define names that cannot be found in its syntax tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in _DYNAMIC:
            return True
        if isinstance(node, ast.alias) and node.name == "*":
            return True
    return False
