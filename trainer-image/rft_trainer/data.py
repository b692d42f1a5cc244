"""Rows: read, checked, split and rendered.

A bad dataset is reported whole: every broken line is collected before anything fails, because a
user who fixes one line per GPU allocation gives up.
"""

import hashlib
import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rft_api.graders import Grader
from rft_api.lifecycle import Evaluation
from rft_planner.steps import MAX_HELD_OUT, MIN_HELD_OUT, held_out_rows
from rft_trainer.errors import ConfigurationError, DataError, TrainerError
from rft_trainer.rewards.numbers import expected_number
from rft_trainer.rewards.template import row_fields

log = logging.getLogger(__name__)

ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_LISTED = 20
"""Problems named one by one in a message; the rest are counted."""

WARN_DROPPED = 0.1
"""Share of prompts over the budget above which a warning is logged."""

Message = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One row. ``key`` is equal for rows with the same prompt, however their JSON is written."""

    line: int
    messages: list[Message]
    fields: dict[str, Any]
    key: str


@dataclass(frozen=True)
class Prompt:
    """A row as the sampler and the trainer both see it."""

    row: Row
    token_ids: tuple[int, ...]


class Tokenizer(Protocol):
    """The one method of a tokenizer that is used here."""

    def apply_chat_template(self, conversation: list[Message], **options: Any) -> Any:
        """Return the token ids of a conversation."""


def data_error(problems: Sequence[str]) -> DataError:
    """Return one error that lists the first problems and counts the others."""
    listed = "; ".join(problems[:MAX_LISTED])
    more = len(problems) - MAX_LISTED
    return DataError(f"{listed}; and {more} more" if more > 0 else listed)


def prompt_key(messages: Sequence[Message]) -> str:
    """Hash the canonical JSON of a prompt."""
    canonical = json.dumps(messages, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def required_fields(graders: Iterable[Grader]) -> dict[str, dict[str, Grader]]:
    """Return the fields that graders read from a row: field -> grader name -> grader."""
    needs: dict[str, dict[str, Grader]] = {}
    for grader in graders:
        kind = grader.exact_match or grader.numeric or grader.math or grader.text_similarity
        fields = [kind.field] if kind is not None else []
        if grader.model is not None:
            fields = row_fields(grader.model.prompt)
        for field in fields:
            needs.setdefault(field, {})[grader.name] = grader
    return needs


def load_rows(source: str | Path, required: Mapping[str, Mapping[str, Grader]] | None = None) -> list[Row]:
    """Read JSONL rows from a file or URI; blank lines are skipped.

    ``required`` is what ``required_fields`` returns. Raises DataError with every broken line,
    ConfigurationError when nothing can read the URI's protocol.
    """
    rows: list[Row] = []
    problems: list[str] = []
    for line, raw in _lines(_read(str(source))):
        try:
            row = _row(line, raw)
        except ValueError as error:
            problems.append(f"line {line}: {error}")
            continue
        missing = list(_unmet(row.fields, required or {}))
        problems += [f"line {line}: {problem}" for problem in missing]
        rows.append(row)
    if problems:
        raise data_error(problems)
    if not rows:
        raise DataError(f"{source}: no rows")
    return rows


def _read(source: str) -> bytes:
    """Return the bytes of a local path or of anything fsspec knows."""
    try:
        if "://" not in source:
            return Path(source).read_bytes()
        import fsspec  # type: ignore[import-untyped]

        with fsspec.open(source, "rb") as file:
            return bytes(file.read())
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise DataError(f"{source}: no such file") from error
    except (ImportError, ValueError) as error:
        raise ConfigurationError(f"{source}: {error}") from error
    except PermissionError as error:
        raise DataError(f"{source}: permission denied") from error
    except OSError as error:  # storage and network: another attempt may fare better
        raise TrainerError(f"{source}: cannot be read: {error}") from error


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number the lines from 1. Only a newline ends one: JSON text may hold U+2028."""
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if raw.strip():
            yield number, raw


def _row(line: int, raw: bytes) -> Row:
    """Parse and check one line. Raises ValueError with what is wrong."""
    value = _json(raw)
    if not isinstance(value, dict):
        raise ValueError(f"a row is a JSON object, not {_kind(value)}")
    messages = value.pop("messages", None)
    _check_messages(messages)
    return Row(line, messages, value, prompt_key(messages))


def _json(raw: bytes) -> Any:
    """Parse strict JSON: no NaN, no lone surrogates, no bottomless nesting."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        value = json.loads(raw.decode(), parse_constant=refuse)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error
    except UnicodeEncodeError as error:
        raise ValueError("holds half of a surrogate pair") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def _kind(value: object) -> str:
    """Name a JSON value's type as JSON does."""
    if value is None:
        return "null"
    names: dict[type, str] = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return names[type(value)]


def _check_messages(messages: object) -> None:
    """Raise ValueError unless this is a conversation that the model is to answer."""
    if messages is None:
        raise ValueError("messages is missing")
    if not isinstance(messages, list):
        raise ValueError(f"messages is {_kind(messages)}, not a list")
    if not messages:
        raise ValueError("messages is empty")
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict):
            raise ValueError(f"message {number} is {_kind(message)}, not an object")
        if message.get("role") not in ROLES:
            raise ValueError(
                f"message {number}: role {json.dumps(message.get('role'))} is not one of {', '.join(ROLES)}"
            )
        content = message.get("content")
        if not isinstance(content, str):
            raise ValueError(f"message {number}: content is {_kind(content)}, not a string")
    if messages[-1]["role"] == "assistant":
        raise ValueError("the last message is the assistant's: nothing is left to answer")


def _unmet(fields: Mapping[str, Any], required: Mapping[str, Mapping[str, Grader]]) -> Iterator[str]:
    """Yield what graders need of a row and do not find."""
    for field, graders in required.items():
        value = fields.get(field)
        names = ", ".join(graders)
        if value is None:
            yield f"field {field} is missing (grader {names})"
        elif isinstance(value, list | dict) and any(grader.model is None for grader in graders.values()):
            yield f"field {field} is {_kind(value)} (grader {names})"
        else:
            for name, grader in graders.items():
                if grader.numeric is not None and expected_number(value, grader.numeric) is None:
                    yield f"field {field} holds no number (grader {name})"


def split(rows: Sequence[Row], evaluation: Evaluation) -> tuple[list[Row], list[Row]]:
    """Return (train, held out); rows with the same prompt land on the same side.

    Prompts are taken in the order of their hashes, so the set depends on the rows alone: not on
    their order, the seed or the attempt. Raises DataError when half of the rows are too few.
    """
    limit = min(MAX_HELD_OUT, len(rows) // 2)
    wanted = held_out_rows(len(rows), evaluation.fraction)
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[row.key] = sizes.get(row.key, 0) + 1
    held: set[str] = set()
    count = 0
    for key in sorted(sizes):
        if count < wanted and count + sizes[key] <= limit:
            held.add(key)
            count += sizes[key]
    if count < MIN_HELD_OUT:
        raise DataError(
            f"{len(rows)} rows with {len(sizes)} different prompts are too few to hold out {MIN_HELD_OUT} and"
            f" train on as many: add rows, or give the evaluation a dataset of its own"
        )
    return [r for r in rows if r.key not in held], [r for r in rows if r.key in held]


def without(rows: Sequence[Row], held_out: Collection[Row]) -> list[Row]:
    """Return the rows whose prompts are not evaluated on, for an evaluation dataset of its own.

    Raises DataError when none is left.
    """
    keys = {row.key for row in held_out}
    kept = [row for row in rows if row.key not in keys]
    if not kept:
        raise DataError("every training prompt is also in the evaluation dataset")
    if len(kept) < len(rows):
        log.warning("%d training rows left out: their prompts are evaluated on", len(rows) - len(kept))
    return kept


def render(
    rows: Sequence[Row],
    tokenizer: Tokenizer,
    chat_template_args: Mapping[str, Any] | None,
    budget_tokens: int,
) -> tuple[list[Prompt], int]:
    """Return the prompts within ``budget_tokens`` and how many were longer.

    Raises DataError for rows the chat template refuses and when every prompt is too long,
    ConfigurationError when the tokenizer has no template.
    """
    if getattr(tokenizer, "chat_template", "") is None:
        raise ConfigurationError("the model's tokenizer has no chat template")
    prompts: list[Prompt] = []
    problems: list[str] = []
    shortest: int | None = None
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
    for row in rows:
        try:
            ids = tokenizer.apply_chat_template(row.messages, **{**(chat_template_args or {}), **options})
        except Exception as error:  # templates are programs of the model's authors: they raise anything
            problems.append(f"line {row.line}: the chat template refuses it: {error}")
            continue
        shortest = min(len(ids), shortest if shortest is not None else len(ids))
        if len(ids) <= budget_tokens:
            prompts.append(Prompt(row, tuple(ids)))
    if problems:
        raise data_error(problems)
    dropped = len(rows) - len(prompts)
    if not prompts:
        raise DataError(
            f"all {len(rows)} prompts are longer than {budget_tokens} tokens (the shortest has {shortest}):"
            " raise maxContextLength or lower maxTokens"
        )
    if dropped > WARN_DROPPED * len(rows):
        log.warning("%d of %d prompts dropped: longer than %d tokens", dropped, len(rows), budget_tokens)
    return prompts, dropped
