"""``rft samples``: shows the rollouts of a step with their scores."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from rft_cli.commands.source import run_folder
from rft_cli.errors import INVALID, UNREADABLE, UserError
from rft_cli.options import Context, Namespace
from rft_cli.render.console import reports_errors
from rft_cli.render.views import NONE, number

ROLLOUTS = "rollouts"
_FILE = re.compile(r"step-([0-9]{6,})\.jsonl\.zst")
Record = dict[str, Any]
"""A line of ``rollouts/step-000042.jsonl.zst``: one completion with its prompt and scores."""


class Format(StrEnum):
    """Values of ``-o``."""

    TEXT = "text"
    JSON = "json"


@reports_errors
def samples(
    source: Annotated[str, typer.Argument(metavar="DIR", help="A run's folder.")],
    step: Annotated[int | None, typer.Option(min=1, help="The newest if absent.")] = None,
    row: Annotated[int | None, typer.Option(min=1, help="Only this line of the dataset.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Prompts to show.")] = 5,
    output: Annotated[Format, typer.Option("--output", "-o", help="text or json.")] = Format.TEXT,
    context: Context = None,
    namespace: Namespace = None,
) -> None:
    """Show the rollouts of a step: prompt, completion, score of each grader, advantage, finish reason.

    The name of a job in the cluster says how to get its folder. Exit code 1: no such step or row; 2: no
    such folder.
    """
    folder = run_folder(source, context, namespace, ROLLOUTS)
    number_, path = rollout_file(folder, step)
    records = read_rollouts(path)
    groups = [list(group) for _, group in itertools.groupby(records, key=lambda record: record["line"])]
    chosen = [group for group in groups if row is None or group[0]["line"] == row]
    if not chosen:
        lines = ", ".join(str(group[0]["line"]) for group in groups)
        raise UserError(f"--row {row}: step {number_} sampled the rows {lines}; name one of them", INVALID)
    shown = chosen[:limit]
    if output is Format.JSON:
        typer.echo(json.dumps([record for group in shown for record in group], indent=2, ensure_ascii=False))
        return
    for group in shown:
        typer.echo("\n".join(as_text(group)) + "\n")
    if len(chosen) > limit:
        typer.echo(
            f"{limit} of {len(chosen)} prompts of step {number_}; --limit shows more, --row one of them"
        )


def rollout_file(folder: Path, step: int | None) -> tuple[int, Path]:
    """Return step and file of a step's rollouts; ``step`` None: the newest step. Raises UserError."""
    found = {
        int(match[1]): path
        for path in (folder / ROLLOUTS).glob("step-*.jsonl.zst")
        if (match := _FILE.fullmatch(path.name))
    }
    if not found:
        raise UserError(f"{folder}: holds no {ROLLOUTS}; name a run's folder with a step made", UNREADABLE)
    wanted = max(found) if step is None else step
    if wanted not in found:
        raise UserError(f"--step {step}: {folder} has the steps {_ranges(sorted(found))}", INVALID)
    return wanted, found[wanted]


def read_rollouts(path: Path) -> list[Record]:
    """Return the records of a file of rollouts. Raises UserError when it is not one."""
    # Imported here, because no other command needs it.
    import zstandard

    try:
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
            lines = stream.read().decode().splitlines()
        records: list[Record] = [json.loads(line) for line in lines]
        if all({"line", "completion", "graders"} <= record.keys() for record in records):
            return records
        problem = "a record lacks line, completion or graders"
    except (OSError, ValueError, AttributeError, zstandard.ZstdError) as error:
        problem = str(error)
    raise UserError(f"{path}: is not a file of rollouts: {problem}", UNREADABLE)


def as_text(group: Sequence[Record]) -> list[str]:
    """Return a prompt with its rollouts as text, the highest reward first."""
    first = group[0]
    rewards = [record["reward"] for record in group if record.get("reward") is not None]
    mean = sum(rewards) / len(rewards) if rewards else None
    lines = [f"step {first['step']}, row {first['line']}: {len(group)} rollouts, mean reward {number(mean)}"]
    for message in first.get("messages") or []:
        lines += _indented(f"{message.get('role')}: {message.get('content')}", "  ")
    if fields := first.get("fields"):
        shown = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in fields.items())
        lines += _indented(f"fields: {shown}", "  ")
    for record in sorted(group, key=_reward, reverse=True):
        lines += _rollout(record)
    return lines


def _rollout(record: Mapping[str, Any]) -> Iterator[str]:
    advantage = record.get("advantage")
    parts = [
        f"reward {number(record.get('reward'))}",
        *(f"{name} {number(score)}" for name, score in record["graders"].items()),
        f"advantage {NONE if advantage is None else f'{advantage:+.3f}'}",
        f"{record.get('finishReason')} after {record.get('tokens')} tokens",
    ]
    yield "  -- " + ", ".join(parts)
    for name, error in (record.get("errors") or {}).items():
        yield from _indented(f"error of {name}: {error}", "     ")
    yield from _indented(record["completion"], "     ")


def _reward(record: Mapping[str, Any]) -> float:
    reward = record.get("reward")
    return float("-inf") if reward is None else float(reward)


def _indented(text: str, margin: str) -> list[str]:
    """Return the text, indented. Control characters, which a terminal would execute, are shown as codes."""
    safe = "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in str(text))
    return [f"{margin}{line}" for line in safe.split("\n")]


def _ranges(steps: Sequence[int]) -> str:
    """Return ``1 to 3, 7`` for sorted steps."""
    parts: list[list[int]] = []
    for step in steps:
        if parts and parts[-1][-1] == step - 1:
            parts[-1].append(step)
        else:
            parts.append([step])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in parts)
