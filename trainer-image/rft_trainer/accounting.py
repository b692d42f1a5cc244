"""Adds the counts of one training step to the state of the run.

The counts are tokens, dropped prompts and groups, grader errors, and forged replies. A forged reply is one
that another program wrote in place of the grader.
"""

from rft_run.state import RunState
from rft_trainer.data import batching
from rft_trainer.data.training import Batch
from rft_trainer.rollout.groups import SampledBatch


def count_batch(state: RunState, batch: Batch, sampled: SampledBatch) -> None:
    """Update ``state``, the progress of the run, after a training step.

    These values change: the step number, the position in the data, the expected length of a completion, and
    the totals of tokens, dropped prompts, dropped groups, grader errors and forged replies. ``sampled`` has
    the graded rollouts of the prompts in ``batch``.
    """
    accepted = [rollout for group in sampled.groups for rollout in group.accepted]
    lengths = [len(rollout.generated.token_ids) for rollout in accepted]
    state.step += 1
    state.position = batch.after
    state.expected_completion = batching.next_expectation(state.expected_completion, lengths)
    state.prompt_tokens += sum(len(group.accepted) * len(group.prompt.token_ids) for group in sampled.groups)
    state.completion_tokens += sum(lengths)
    state.dropped_prompts += batch.dropped
    state.dropped_groups += sum(group.dropped for group in sampled.groups)
    errors = sampled.scores.error_counts | sampled.scores.canary_error_counts
    for name, count in errors.items():
        state.grader_errors[name] = state.grader_errors.get(name, 0) + count
    for name, count in sampled.scores.forged_counts.items():
        state.forged_replies[name] = state.forged_replies.get(name, 0) + count
