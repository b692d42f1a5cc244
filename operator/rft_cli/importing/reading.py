"""Finds out for which program an imported file was made (OpenAI, Fireworks or TRL), and converts its job."""

import json
from typing import Any

from rft_api import foreign
from rft_api.validation import check
from rft_cli.importing import fireworks, openai, openai_graders, trl
from rft_cli.importing.result import Draft, ImportProblem, Options

KNOWN = (
    "known are: JSON of an OpenAI fine-tuning job or grader; a firectl or ep command line, or JSON of a"
    " Fireworks job; a Python script with TRL's GRPOConfig"
)


def read(text: str, options: Options) -> Draft:
    """Convert ``text``, the content of a file of OpenAI, Fireworks or TRL, to an RFTJob. Return its draft:
    manifest, files and notes.

    Raises:
        ImportProblem: if the file is of no known program, or an RFTJob cannot express the job. The message
            says why.
    """
    body = _json(text)
    if isinstance(body, dict):
        if openai_graders.is_grader(body) or openai.is_job(body):
            return openai.read(body, options)
        if isinstance(body.get("grader"), dict):  # a request to validate or run a grader
            return openai.read(body["grader"], options)
        if fireworks.is_job(body):
            return fireworks.read(fireworks.flattened(body), options)
        raise ImportProblem(f"the JSON has the fields {', '.join(map(str, list(body)[:6]))}; {KNOWN}")
    if trl.is_script(text):  # before is_command, because a script may have a line that looks like a command
        return trl.read(text, options)
    if fireworks.is_command(text):
        return fireworks.read_command(text, options)
    raise ImportProblem(f"rft import cannot read this file; {KNOWN}")


def _json(text: str) -> Any:
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return None


def problems(draft: Draft) -> list[str]:
    """Check the manifest of an imported RFTJob by the rules of the API. Return a message for each problem.

    The content of files and the field ``spec.storage`` are not checked.
    """
    manifest = draft.manifest()
    graders = [_with_code(grader) for grader in draft.graders]
    spec = {**manifest["spec"], "graders": graders, "storage": {"ephemeral": {}}}
    return [str(problem) for problem in check({**manifest, "spec": spec}).problems]


def _with_code(grader: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of ``grader`` that can be checked by the rules of the API.

    The API does not know the field ``python.file``, which only the command ``rft`` can read. So the copy has
    the field ``python.inline`` in its place, with other code.
    """
    if "python" not in grader:
        return grader
    python = {key: value for key, value in grader["python"].items() if key != "file"}
    return {**grader, "python": {**python, "inline": "x"}}


def summary(draft: Draft) -> list[str]:
    """Return lines of text for the user: the number of fields that the import changed or left out, and then
    one note for each of them.
    """
    origin = foreign.NAMES[draft.origin]
    count = len(draft.notes)
    said = "1 field was" if count == 1 else f"{count} fields were"
    return [f"from {origin}: {said} changed or left out", *(f"  {note}" for note in draft.notes)]
