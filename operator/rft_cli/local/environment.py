"""Tries out a job's environment without a model, for ``rft env check``.

An environment is a class of the user that answers the model over several turns. Here the user gives the text
that the model would write in each turn.
"""

import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rft_cli.errors import INVALID, UserError
from rft_cli.local.inputs import Overrides, located_graders
from rft_cli.local.manifest import Manifest
from rft_cli.local.rows import RowLine
from rft_run.errors import TrainerError
from rft_run.rows.messages import Message
from rft_run.rows.tool_calls import MalformedCall, from_text
from rft_run.rows.turns import add_first_text, failure

if TYPE_CHECKING:
    from rft_graders.scorer import Scorer


@dataclass(frozen=True)
class Played:
    """The result of one rollout of the environment, for one row of the dataset.

    - ``line``: the row's line number in the dataset, counted from 1
    - ``messages``: the row's messages, then those of the rollout
    - ``seconds``: the wall time of the rollout
    - ``reward``: the number that the environment returned, before ``spec.environment.scale`` is applied
    """

    line: int
    messages: list[Message]
    seconds: float
    reward: float | None
    error: str = ""
    """Why there is no reward. Empty if there is a reward."""
    failures: tuple[str, ...] = ()
    """The error messages that the model got for tool calls that failed or could not be parsed."""


def played(
    manifest: Manifest, overrides: Overrides, rows: Sequence[RowLine], script: Sequence[str]
) -> tuple[list[dict[str, Any]], list[Played]]:
    """Play one rollout of the job's environment for each row. Return the environment's tools (their JSON
    schemas), and the result for each row.

    - ``script``: the texts in place of the model's, one for each turn. Texts after ``maxTurns`` are not used.
    - ``overrides``: may have a file with the environment's code, which replaces the code in the manifest

    Raises UserError if the job has no environment, if a library is missing, or if the environment cannot be
    loaded or needs a model.
    """
    try:
        from rft_graders.scorer import Scorer
    except ImportError as error:
        raise UserError(
            f"environments need the library {error.name}, which is not installed;"
            " pip install 'rft-operator[trainer]'",
            INVALID,
        ) from error
    environment = manifest.job.spec.environment
    if environment is None:
        raise UserError("spec.environment: is not set, so there is nothing to check; add it", INVALID)
    with tempfile.TemporaryDirectory(prefix="rft-env-") as folder:
        code = located_graders(manifest, overrides.graders, Path(folder))
        for source in code.values():
            source.write()
        paths = {name: source.location for name, source in code.items()}
        try:
            with Scorer([environment.as_grader()], grader_code=paths, scratch_dir=folder, slots=1) as scorer:
                player = _Player(scorer)
                return player.tools, [player.play(row, script[: environment.max_turns]) for row in rows]
        except (TrainerError, _Failed) as error:
            raise UserError(f"spec.environment: {error}", INVALID) from error


class _Failed(Exception):
    """Raised if a call of the environment failed. The message says why."""


class _Player:
    def __init__(self, scorer: "Scorer") -> None:
        self._scorer = scorer
        described = self._act({"do": "describe"})
        self.tools: list[dict[str, Any]] = described["tools"]
        if described.get("agent"):
            raise UserError(
                "spec.environment.python: the class has the method rollout, which needs a model at its"
                " base_url, and rft env check has no model; test it in a short run, with stop.maxSteps: 1",
                INVALID,
            )
        self._replies = bool(described["replies"])

    def play(self, row: RowLine, script: Sequence[str]) -> Played:
        messages: list[Message] = [dict(message) for message in row.messages]
        failures: list[str] = []
        started = time.monotonic()
        reward, said = None, ""
        try:
            begun = self._act({"do": "reset", "row": {**row.fields, "messages": row.messages}})
            if "text" in begun:
                add_first_text(messages, begun["text"])
            for text in script:
                if not self._turn(text, messages, failures):
                    break
            reward = float(self._act({"do": "reward"})["reward"])
        except _Failed as error:
            said = str(error)
            with suppress(_Failed):
                self._act({"do": "end"})
        return Played(row.line, messages, time.monotonic() - started, reward, said, tuple(failures))

    def _turn(self, text: str, messages: list[Message], failures: list[str]) -> bool:
        """Play one turn, in which the model writes ``text``. Return whether the rollout goes on.

        The turn's messages are appended to ``messages``, and errors of tool calls to ``failures``.
        """
        try:
            message = from_text(text)
        except MalformedCall as error:
            failures.append(str(error))
            messages += [
                {"role": "assistant", "content": text},
                {"role": "tool", "content": failure(str(error))},
            ]
            return True
        messages.append(message)
        for call in message.get("tool_calls", ()):
            function = call["function"]
            arguments = json.loads(function["arguments"])
            found = self._act({"do": "call", "name": function["name"], "arguments": arguments})
            if "failed" in found:
                failures.append(f"{function['name']}: {found['failed']}")
            result = failure(found["failed"]) if "failed" in found else found["text"]
            messages.append({"role": "tool", "content": result})
        if message.get("tool_calls"):
            return True
        answer = self._act({"do": "reply", "text": message["content"]}) if self._replies else {}
        if "text" in answer:
            messages.append({"role": "user", "content": answer["text"]})
        return "text" in answer

    def _act(self, what: dict[str, Any]) -> dict[str, Any]:
        from rft_graders.scorer import Act

        reply = self._scorer.act(Act(0, what))
        if reply.value is None:
            raise _Failed(str(reply.outcome))
        return reply.value
