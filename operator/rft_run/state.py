"""Defines the content of ``state.json`` in a checkpoint's folder: the progress of the run."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from rft_run.run_files import MOST


@dataclass(frozen=True)
class Position:
    """The position in the training rows at which the next batch begins.

    - ``epoch``: the number of the epoch, counted from 1
    - ``offset``: the number of rows of this epoch that are before the batch
    """

    epoch: int = 1
    offset: int = 0


@dataclass
class RunState:
    """The progress of a run after a complete step. A resumed run continues from it.

    - ``position``: the position in the training rows at which the next step begins
    - ``dropped_prompts``: the number of prompts that were found to be too long during training; prompts that
      were found before the first step are not counted
    - ``unknown``: fields from a newer release, by name; they are kept when the state is saved again

    A new field of this class needs a default, because older checkpoints lack the field.
    """

    step: int = 0
    position: Position = field(default_factory=Position)
    expected_completion: float = 0.0
    """Expected number of sampled tokens in one rollout of the next batch."""
    adapter_version: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dropped_groups: int = 0
    dropped_prompts: int = 0
    grader_errors: dict[str, int] = field(default_factory=dict)
    forged_replies: dict[str, int] = field(default_factory=dict)
    gpu_seconds: float = 0.0
    best_reward: float | None = None
    """Highest held-out reward so far, without the starting policy. None if no step was evaluated yet."""
    best_step: int = 0
    """The step after which ``best_reward`` was measured. 0 if ``best_reward`` is None."""
    evaluations_without_best: int = 0
    """Number of held-out evaluations after ``best_step``. None of them gave a higher reward."""
    unknown: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the state as a JSON object for ``state.json``. Its fields include those in ``unknown``."""
        known = asdict(self)
        return {**known.pop("unknown"), **known}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "RunState":
        """Return the state from ``value``, the JSON object in ``state.json``. Raises ValueError if ``value``
        is not such an object.
        """
        names = {entry.name for entry in fields(cls)} - {"unknown"}
        if not isinstance(value, dict) or not isinstance(value.get("position"), dict):
            raise ValueError("is not a run's state")
        known = {name: part for name, part in value.items() if name in names}
        unknown = {name: part for name, part in value.items() if name not in names}
        position = {name: _count(name, value["position"].get(name)) for name in ("epoch", "offset")}
        read = {name: _reader(name)(name, part) for name, part in known.items() if name != "position"}
        _count("step", value.get("step"))
        return cls(**read, position=Position(**position), unknown=unknown)


def _reader(name: str) -> Callable[[str, Any], Any]:
    return _READ.get(name, _count)


def _count(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST:
        raise ValueError(f"is not a run's state: {name} is not a whole number from 0 to {MOST}")
    return value


def _number(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= MOST:
        raise ValueError(f"is not a run's state: {name} is not a number from -{MOST} to {MOST}")
    return value


def _number_or_none(name: str, value: Any) -> float | None:
    return None if value is None else _number(name, value)


def _counts(name: str, value: Any) -> dict[str, int]:
    if not isinstance(value, dict):
        raise ValueError(f"is not a run's state: {name} is not an object")
    return {key: _count(f"{name}.{key}", part) for key, part in value.items()}


_READ: dict[str, Callable[[str, Any], Any]] = {
    "expected_completion": _number,
    "gpu_seconds": _number,
    "best_reward": _number_or_none,
    "grader_errors": _counts,
    "forged_replies": _counts,
}
"""For a field of ``RunState``, by its name: the function that checks the field's JSON value and returns it.

A field that is not listed here is a whole number, and ``_count`` checks it."""
