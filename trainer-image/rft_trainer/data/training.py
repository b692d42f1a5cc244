"""Chooses the prompts of each training step, from a dataset of any size."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean

from rft_run.state import Position
from rft_trainer.data.batching import TokenBudget, epoch_order, estimated_steps
from rft_trainer.data.rows import Prompt


@dataclass(frozen=True)
class Reached:
    """A place in an epoch that the reading of prompts has reached: a prompt, or the end of the epoch.

    - ``prompt``: the prompt. None: the end of the epoch.
    - ``end``: the offset of the next row in the order of the epoch.
    - ``dropped``: how many prompts were skipped since the reading began, because they were too long.
    """

    prompt: Prompt | None
    end: int
    dropped: int = 0


@dataclass(frozen=True)
class Batch:
    """The prompts of one training step.

    - ``after``: the position in the data where the next batch begins.
    - ``dropped``: number of prompts that were skipped in epoch 1, because they were too long.
    """

    prompts: list[Prompt]
    after: Position
    dropped: int

    def followed_by(self, other: "Batch") -> "Batch":
        """Return one batch with the prompts of both batches. ``other`` begins where this batch ends."""
        return Batch(self.prompts + other.prompts, other.after, self.dropped + other.dropped)


class TrainingPrompts(ABC):
    """The prompts for training, in the shuffled order of each epoch. Subclasses read small or large files.

    - ``rows``: number of rows of an epoch.
    - ``mean_length``: mean length of a prompt in tokens. It may be an estimate from a sample.
    - ``share``: the share of the rows that is used for training. It may be an estimate from a sample.
    """

    rows: int
    mean_length: float
    share: float = 1.0

    @abstractmethod
    def read(self, position: Position) -> Iterator[Reached]:
        """Yield each prompt from ``position`` to the end of its epoch, and at last a ``Reached`` without one.

        Raises DataError if a row is invalid, or if no row of the epoch can be used for training.
        """

    def batch(
        self, position: Position, epochs: int, rollouts: int, completion: float, budget_tokens: int
    ) -> Batch:
        """Return the prompts of the step that begins at ``position``. All prompts are of one epoch.

        The number of prompts is chosen so that their rollouts fit into ``budget_tokens``. After the last
        epoch the batch is empty. Raises DataError if a row is invalid.

        - ``epochs``: number of epochs of the run.
        - ``rollouts``: number of rollouts of each prompt.
        - ``completion``: expected length of a completion, in tokens.
        - ``budget_tokens``: number of tokens of a step.
        """
        dropped = 0
        while position.epoch <= epochs:
            room = TokenBudget(rollouts, completion, budget_tokens)
            prompts: list[Prompt] = []
            epoch, passed = position.epoch, 0
            for reached in self.read(position):
                if reached.prompt is not None and not room.takes(len(reached.prompt.token_ids)):
                    break
                passed = reached.dropped
                if reached.prompt is None:
                    position = Position(epoch + 1, 0)
                    break
                prompts.append(reached.prompt)
                position = Position(epoch, reached.end)
            dropped += passed if epoch == 1 else 0  # counted once: later epochs skip the same prompts
            if prompts:
                return Batch(prompts, position, dropped)
        return Batch([], position, dropped)

    def further(self, position: Position, count: int) -> Batch:
        """Return at most ``count`` more prompts for a batch, from the same epoch.

        ``position``: where the batch ends. If its offset is 0, the batch ended with its epoch, and no prompt
        is returned. Raises DataError if a row is invalid.
        """
        if position.offset == 0:
            return Batch([], position, 0)
        epoch, dropped = position.epoch, 0
        prompts: list[Prompt] = []
        for reached in self.read(position):
            dropped = reached.dropped
            if reached.prompt is None:
                position = Position(epoch + 1, 0)
                break
            prompts.append(reached.prompt)
            position = Position(epoch, reached.end)
            if len(prompts) == count:
                break
        return Batch(prompts, position, dropped if epoch == 1 else 0)

    def first(self, count: int) -> list[Prompt]:
        """Return the first ``count`` prompts of the first epoch. Raises DataError if a row is invalid."""
        reached = (one.prompt for one in self.read(Position()))
        return list(islice((prompt for prompt in reached if prompt is not None), count))

    def steps_left(
        self, position: Position, epochs: int, rollouts: int, completion: float, budget_tokens: int
    ) -> int:
        """Estimate the number of training steps from ``position`` to the end of the last epoch.

        - ``epochs``: number of epochs of the run.
        - ``rollouts``: number of rollouts of each prompt.
        - ``completion``: expected length of a completion, in tokens.
        - ``budget_tokens``: number of tokens of a step.
        """
        return estimated_steps(
            self.rows, self.mean_length, position, epochs, rollouts, completion, budget_tokens, self.share
        )


class InMemory(TrainingPrompts):
    """The training prompts of a small file. All of them are in memory, rendered before training starts."""

    def __init__(self, prompts: Sequence[Prompt], seed: int) -> None:
        self._prompts, self._seed = prompts, seed
        self._order: tuple[int, list[int]] = (0, [])
        self.rows = len(prompts)
        self.mean_length = fmean(len(prompt.token_ids) for prompt in prompts) if prompts else 0.0

    def read(self, position: Position) -> Iterator[Reached]:
        """Yield each prompt from ``position`` to the end of its epoch, in the shuffled order of the epoch.

        At last yield a ``Reached`` without a prompt, for the end of the epoch.
        """
        if self._order[0] != position.epoch:
            self._order = position.epoch, epoch_order(self.rows, self._seed, position.epoch)
        for offset in range(position.offset, self.rows):
            yield Reached(self._prompts[self._order[1][offset]], offset + 1)
        yield Reached(None, self.rows)
