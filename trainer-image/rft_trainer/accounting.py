"""Counts the tokens, dropped rows and groups, and grader errors of a step.

It also counts forged replies: replies that another program wrote in place of the grader.
"""

from rft_run.state import RunState
from rft_trainer.data import batching
from rft_trainer.data.training import Batch
from rft_trainer.rollout.groups import SampledBatch


def count_batch(state: RunState, batch: Batch, sampled: SampledBatch) -> None:
    """Update ``state`` after a step was trained on ``batch``.

    The changes are the step number, the position in the data, the expected length of a completion, and the
    counts of tokens, dropped prompts, dropped groups, grader errors and forged replies.
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
