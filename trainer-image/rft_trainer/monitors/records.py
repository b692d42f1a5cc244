"""Records of a run for people and tools: ``metrics.jsonl`` and ``rollouts/step-000042.jsonl.zst``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zstandard

from rft_run import atomic
from rft_run.errors import VolumeError
from rft_trainer import files
from rft_trainer.rollout.groups import Group


class MetricsFile:
    """``metrics.jsonl``, one JSON object a step. A resumed run removes the rows after its checkpoint."""

    def __init__(self, path: Path, last_step: int) -> None:
        """Keep the rows up to ``last_step``. Raises VolumeError."""
        self._path = path
        self.rows: list[dict[str, Any]] = [row for row in _read(path) if row["step"] <= last_step]
        files.write_bytes(path, "".join(map(_line, self.rows)).encode())

    def append(self, row: dict[str, Any]) -> None:
        """Append the row of a step. Raises VolumeError."""
        self.rows.append(row)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(row))
        except OSError as error:
            raise VolumeError(f"{self._path}: {error}") from error


def _read(path: Path) -> list[dict[str, Any]]:
    """Read the rows up to the first incomplete line, which a killed trainer may leave."""
    rows: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return rows
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, separators=(",", ":"), allow_nan=False) + "\n"


def save_rollouts(folder: Path, step: int, groups: Sequence[Group]) -> None:
    """Write all rollouts of a step, also the dropped ones. Raises VolumeError."""
    lines = [record for group in groups for record in _records(step, group)]
    data = zstandard.ZstdCompressor().compress("".join(map(_line, lines)).encode())
    files.write_bytes(folder / f"step-{step:06d}.jsonl.zst", data)


def _records(step: int, group: Group) -> list[dict[str, Any]]:
    advantages = dict(zip(map(id, group.accepted), group.advantages, strict=True))
    return [
        {
            "step": step,
            "line": group.prompt.row.line,
            "messages": group.prompt.row.messages,
            "fields": group.prompt.row.fields,
            "completion": rollout.generated.text,
            "reward": rollout.score.reward,
            "graders": rollout.score.per_grader,
            "errors": rollout.score.errors,
            "advantage": advantages.get(id(rollout)),
            "finishReason": rollout.generated.finish_reason,
            "tokens": len(rollout.generated.token_ids),
        }
        for rollout in group.rollouts
    ]


def read_rollouts(path: Path) -> list[dict[str, Any]]:
    """Read the rollouts that ``save_rollouts`` wrote."""
    data = zstandard.ZstdDecompressor().decompress(path.read_bytes())
    return [json.loads(line) for line in data.decode().splitlines()]


def clean(run_dir: Path, last_step: int) -> None:
    """Remove unfinished files, and the rollouts of steps after ``last_step``, which are made again."""
    for folder in (run_dir, run_dir / "rollouts", run_dir / "adapters", run_dir / "evaluation"):
        atomic.remove_leftovers(folder)
    for path in (run_dir / "rollouts").glob("step-*.jsonl.zst"):
        if int(path.name[5:11]) > last_step:
            path.unlink()
