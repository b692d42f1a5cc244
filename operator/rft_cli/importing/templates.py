"""Converts templates of OpenAI, such as ``{{item.answer}}``, to those of an RFTJob, such as ``{answer}``."""

import re

from rft_cli.importing.result import ImportProblem

_FIELD = re.compile(r"\{\{\s*(?:(item|sample)\.)([^{}]+?)\s*\}\}")
_PATH = re.compile(r"[^.\[\]{}]+(?:\.[^.\[\]{}]+|\[[0-9]+\])*")


def ours(template: str) -> str:
    """Convert a text template of OpenAI to a template of an RFTJob: ``{{ item.answer }}`` becomes
    ``{answer}``, and ``{{ sample.output_text }}`` becomes ``{completion}``.

    Raises:
        ImportProblem: if a name in braces has no counterpart in an RFTJob, such as ``sample.output_tools``.
    """
    text, position = [], 0
    for match in _FIELD.finditer(template):
        text += [_literal(template[position : match.start()]), f"{{{_name(match[1], match[2])}}}"]
        position = match.end()
    return "".join([*text, _literal(template[position:])])


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _name(namespace: str, path: str) -> str:
    if not _PATH.fullmatch(path):
        raise ImportProblem(f"{{{{{namespace}.{path}}}}} is not a path such as item.answer or item.names[0]")
    if namespace == "item":
        return path
    root, rest = re.split(r"(?=[.\[])|$", path, maxsplit=1)
    if root == "output_text" and not rest:
        return "completion"
    if root == "output_json":
        return f"completion_json{rest}"
    if root == "output_text":
        raise ImportProblem(
            f"{{{{sample.{path}}}}} asks for a part of a text; use sample.output_text for the whole text,"
            f" or sample.output_json{rest} if the completion is JSON"
        )
    raise ImportProblem(
        f"{{{{sample.{path}}}}} has no counterpart: completions have text and no {root}; use"
        " sample.output_text or sample.output_json"
    )
