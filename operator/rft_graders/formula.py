"""The grader ``formula``: calculates a score from the scores of other graders of the job."""

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from rft_api.graders import Grader
from rft_graders.combine import normalized

Outcome = float | ValueError
"""The result of a grader for one completion: a score from 0 to 1, or an error."""

_OPERATORS: dict[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
FUNCTIONS: dict[str, tuple[Callable[..., float], int, int]] = {
    "min": (min, 2, 64),
    "max": (max, 2, 64),
    "abs": (abs, 1, 1),
    "floor": (math.floor, 1, 1),
    "ceil": (math.ceil, 1, 1),
    "exp": (math.exp, 1, 1),
    "sqrt": (math.sqrt, 1, 1),
    "log": (math.log, 1, 1),
}
"""For the name of each function that an expression may call: the Python function, and the minimum and
maximum number of its arguments."""
_ALLOWED = f"numbers, names of graders, + - * / ^, parentheses, {', '.join(FUNCTIONS)}"
_DEEPEST = 50


class FormulaProblem(ValueError):
    """The expression of a formula grader, such as ``0.5 * a + b``, is not valid. The message says why."""


def variable(name: str) -> str:
    """Return the name by which a formula refers to the score of the grader ``name``. Each dash becomes _,
    because a dash in a formula is a minus.
    """
    return name.replace("-", "_")


@lru_cache(maxsize=64)
def parsed(expression: str) -> ast.expr:
    """Return the syntax tree of a formula's expression, such as ``0.5 * a + b^2``. ``^`` means a power.

    Raises FormulaProblem if the expression is not valid.
    """
    try:
        tree = ast.parse(expression.strip().replace("^", "**"), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        raise FormulaProblem(f"{expression!r} cannot be read: {said}; allowed are {_ALLOWED}") from error
    _check(tree, 0)
    return tree


def _check(node: ast.expr, depth: int) -> None:
    """Raise FormulaProblem if a node of a formula's syntax tree, or a node below it, is not allowed.

    ``depth``: the number of nodes above this node.
    """
    if depth > _DEEPEST:
        raise FormulaProblem(
            f"the formula is nested more than {_DEEPEST} levels deep; write it with fewer parentheses"
        )
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        inner = [node.left, node.right]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = [node.operand]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        _check_call(node.func.id, len(node.args))
        inner = node.args
    elif isinstance(node, ast.Name) or (isinstance(node, ast.Constant) and _is_number(node.value)):
        inner = []
    else:
        raise FormulaProblem(f"{ast.unparse(node)!r} is not allowed; allowed are {_ALLOWED}")
    for each in inner:
        _check(each, depth + 1)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _check_call(name: str, count: int) -> None:
    if name not in FUNCTIONS:
        raise FormulaProblem(f"{name}() is not a function of formulas; allowed are {', '.join(FUNCTIONS)}")
    _, least, most = FUNCTIONS[name]
    if not least <= count <= most:
        raise FormulaProblem(f"{name}() needs {least if least == most else f'{least} or more'} values")


def names_in(expression: str) -> list[str]:
    """Return the names of the variables in an expression, each once. A variable stands for a grader's score.

    Raises FormulaProblem if the expression is not valid.
    """
    called = {id(node.func) for node in ast.walk(parsed(expression)) if isinstance(node, ast.Call)}
    return list(
        dict.fromkeys(
            node.id
            for node in ast.walk(parsed(expression))
            if isinstance(node, ast.Name) and id(node) not in called
        )
    )


def evaluate(expression: str, values: Mapping[str, float]) -> float:
    """Return the value of a formula's expression. ``values`` has the score for each variable, by its name.

    Raises ValueError if the arithmetic has no result, for example for a division by 0. Raises KeyError if
    ``values`` lacks a variable.
    """
    try:
        return _value(parsed(expression), values)
    except (ZeroDivisionError, OverflowError, ValueError, TypeError) as error:
        raise ValueError(f"the formula has no value for these scores: {error}") from error


def _value(node: ast.expr, values: Mapping[str, float]) -> float:
    if isinstance(node, ast.BinOp):
        result = _OPERATORS[type(node.op)](_value(node.left, values), _value(node.right, values))
        if isinstance(result, complex):
            raise ValueError("a power of a negative number is not real")
        return result
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand, values)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.Call):
        assert isinstance(node.func, ast.Name)
        return float(FUNCTIONS[node.func.id][0](*(_value(each, values) for each in node.args)))
    if isinstance(node, ast.Name):
        return values[node.id]
    assert isinstance(node, ast.Constant)
    return float(node.value)  # type: ignore[arg-type]


def formula_problem(graders: Sequence[Grader], index: int) -> str:
    """Return the reason why the formula of the grader ``graders[index]`` cannot be used.

    A formula may only name graders before its own grader in the list. Return "" if the formula can be used,
    or if the grader has no formula.
    """
    formula = graders[index].formula
    if formula is None:
        return ""
    try:
        names = names_in(formula.expression)
    except FormulaProblem as error:
        return str(error)
    above = [variable(grader.name) for grader in graders[:index]]
    unknown = [name for name in names if name not in above]
    if unknown:
        allowed = ", ".join(above) or "none: list the graders that the formula reads above it"
        said = f"a formula can name only graders that are listed before it; these are {allowed}"
        return f"{', '.join(unknown)}: {said}"
    return "" if names else f"{formula.expression!r} names no grader; name one of {', '.join(above) or '…'}"


def with_formulas(graders: Sequence[Grader], outcomes: Mapping[str, Outcome]) -> dict[str, Outcome]:
    """Calculate the scores of all formula graders for one completion.

    ``outcomes`` has the scores or errors of the other graders, by name. Return ``outcomes`` with the scores
    or errors of the formula graders added.

    If a formula reads a grader that failed, the formula fails too. But if the failed grader's ``onError`` is
    ``zero``, the formula reads 0 as the score of this grader.
    """
    found = dict(outcomes)
    for index, grader in enumerate(graders):
        if grader.formula is None:
            continue
        try:
            wanted = names_in(grader.formula.expression)
            values = {
                variable(each.name): _counted(each, found[each.name])
                for each in graders[:index]
                if variable(each.name) in wanted
            }
            found[grader.name] = normalized(evaluate(grader.formula.expression, values), grader.scale)
        except ValueError as error:
            found[grader.name] = error
    return found


def _counted(grader: Grader, outcome: Outcome) -> float:
    if isinstance(outcome, float):
        return outcome
    if grader.error_policy == "zero":
        return 0.0
    raise ValueError(f"grader {grader.name} failed: {outcome}")
