"""Defines ``state.json`` of a checkpoint, which has the progress of a run."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Position:
    """The position in the data where the next batch begins: after ``offset`` rows of ``epoch``. The first
    epoch is 1.
    """

    epoch: int = 1
    offset: int = 0


@dataclass
class RunState:
    """Progress of a run after a complete step. ``position`` is the position after the rows that were trained
    on.

    ``dropped_prompts`` is the number of prompts that were found to be too long during training, not before
    its start. A new field of this class needs a default, since older checkpoints lack it. Fields of a
    newer release are kept in ``unknown``, and are written again.
    """

    step: int = 0
    position: Position = field(default_factory=Position)
    expected_completion: float = 0.0
    adapter_version: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dropped_groups: int = 0
    dropped_prompts: int = 0
    grader_errors: dict[str, int] = field(default_factory=dict)
    gpu_seconds: float = 0.0
    best_reward: float | None = None
    best_step: int = 0
    evaluations_without_best: int = 0
    unknown: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the state of the run as a JSON object."""
        known = asdict(self)
        return {**known.pop("unknown"), **known}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "RunState":
        """Read a state from the JSON object that ``to_json`` returns. Raises KeyError and TypeError."""
        names = {entry.name for entry in fields(cls)} - {"unknown"}
        known = {name: part for name, part in value.items() if name in names}
        unknown = {name: part for name, part in value.items() if name not in names}
        position = Position(**{name: value["position"][name] for name in ("epoch", "offset")})
        return cls(**{**known, "step": value["step"], "position": position}, unknown=unknown)
