"""Updates the policy with one batch: for each mini-batch, gradients over all tokens, then a step of AdamW.

The importance ratio compares the current weights with the weights before the batch's first step. So the ratio
is 1 in the first mini-batch. For the other mini-batches, log-probs by the old weights are computed before the
first step.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise

import torch

from rft_run.errors import MemoryExhausted, Preempted
from rft_trainer.learn.gradients import (
    Accumulation,
    Begin,
    BeginOld,
    Compute,
    Finish,
    OldLogprobs,
    UpdateSettings,
)
from rft_trainer.learn.objective import whole_batch
from rft_trainer.learn.packing import PackedRow, completions_by_prompt, micro_batches, rows_of_group
from rft_trainer.learn.policy import Policy
from rft_trainer.learn.ranks import Followers
from rft_trainer.learn.update_metrics import UpdateMetrics, combined
from rft_trainer.rollout.groups import Group


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    groups: Sequence[Group],
    settings: UpdateSettings,
    should_stop: Callable[[], bool],
    followers: Followers,
) -> UpdateMetrics:
    """Update the policy with the graded rollouts of ``groups``: an optimizer step for each mini-batch.

    The policy stays unchanged if no group gives a gradient. ``followers``: the other processes of distributed
    training, which compute a part of the micro-batches.

    Raises:
        Preempted: ``should_stop`` returns True. It is asked between micro-batches, but only before the first
            optimizer step. After this step the update is always completed.
        MemoryExhausted: a forward pass does not fit into the device's memory.
        MemberLost: a process of ``followers`` ended.
    """
    parts = [
        _mini_batch(policy, part, settings, measured=number > 0)
        for number, part in enumerate(mini_batches(groups, settings.mini_batches))
    ]
    made: list[UpdateMetrics] = []
    try:
        old = old_logprobs(policy, parts[1:], followers, should_stop) if len(parts) > 1 else None
        for rows, begin in parts:
            moved = any(metrics.moved for metrics in made)
            work = accumulate(policy, rows, begin, followers, _never if moved else should_stop, old)
            _step(policy, optimizer, work.metrics, settings.max_grad_norm)
            made.append(work.metrics)
    except torch.OutOfMemoryError as error:
        raise MemoryExhausted(
            f"a forward pass of {settings.micro_batch_tokens} tokens does not fit into the device's memory:"
            f" {error}"
        ) from error
    return combined(made)


def mini_batches(groups: Sequence[Group], count: int) -> list[Sequence[Group]]:
    """Divide the groups of a batch into ``count`` mini-batches, or fewer if there are fewer groups.

    The sizes of the mini-batches differ by at most one group. Without groups, one empty mini-batch is
    returned.
    """
    count = max(1, min(count, len(groups)))
    ends = [len(groups) * number // count for number in range(count + 1)]
    return [groups[start:end] for start, end in pairwise(ends)]


def _never() -> bool:
    return False


def _mini_batch(
    policy: Policy, groups: Sequence[Group], settings: UpdateSettings, *, measured: bool
) -> tuple[list[PackedRow], Begin]:
    """Return the rows of a mini-batch, and the command with which the other processes begin this mini-batch.

    ``measured``: whether the old log-probs of the mini-batch are computed before the batch's first optimizer
    step. If not, the mini-batch is the first one, and its current log-probs are the old ones.
    """
    rows, lengths = _rows(policy, groups, settings)
    return rows, Begin(settings, whole_batch(lengths, settings.max_tokens), measured)


def _step(
    policy: Policy, optimizer: torch.optim.Optimizer, metrics: UpdateMetrics, max_grad_norm: float
) -> None:
    """Clip the gradients, and make an optimizer step if they are finite and at least one token is unmasked.

    If all tokens are masked, the gradients are zero, but AdamW would still move the weights by its momentum.
    ``max_grad_norm``: gradients with a larger L2 norm are scaled down to this norm. The norm before clipping
    and the number of steps are stored in ``metrics``.
    """
    metrics.grad_norm = float(torch.nn.utils.clip_grad_norm_(policy.trainable(), max_grad_norm))
    if metrics.tokens and math.isfinite(metrics.grad_norm):
        optimizer.step()
        metrics.steps = 1


def _rows(
    policy: Policy, groups: Sequence[Group], settings: UpdateSettings
) -> tuple[list[PackedRow], list[int]]:
    """Pack the rollouts of the groups into rows. Also return the number of trained tokens of each rollout.

    The second result has only the unmasked rollouts. Groups that give no gradient have no rows, but their
    tokens are counted.
    """
    rows: list[PackedRow] = []
    lengths: list[int] = []
    for group in groups:
        generated = [rollout.generated for rollout in group.accepted]
        lengths += [len(g.token_ids) for g in generated if not (settings.mask_truncated and g.truncated)]
        if group.flat and settings.loss.kl_beta == 0:
            continue  # no gradient: advantages are 0 and there is no KL penalty; its tokens still count
        for prompt_ids, completions in completions_by_prompt(group, settings.mask_truncated).items():
            rows += rows_of_group(
                prompt_ids,
                completions,
                policy.hidden_size_for_packing,
                settings.longest_shared_row,
                flat=policy.forms.flat,
            )
    return rows, lengths


def old_logprobs(
    policy: Policy,
    parts: Sequence[tuple[Sequence[PackedRow], Begin]],
    followers: Followers,
    should_stop: Callable[[], bool],
) -> OldLogprobs:
    """Compute the log-probs of all rows of several mini-batches by the current weights, in all processes.

    ``parts``: the rows of each mini-batch, and its ``Begin`` with the settings. The result has the log-probs
    of this process's micro-batches. Raises Preempted if ``should_stop`` returns True.
    """
    settings = parts[0][1].settings
    with followers.watched():
        order = BeginOld(settings.filter)
        followers.tell_all(order)
        old = OldLogprobs(policy, order, followers.team)
        for rows, _ in parts:
            chunks = _rounds(policy, rows, settings, followers)
            _compute(old, chunks, followers, should_stop)
        followers.tell_all(Finish())
    return old


def accumulate(
    policy: Policy,
    rows: Sequence[PackedRow],
    begin: Begin,
    followers: Followers,
    should_stop: Callable[[], bool],
    old: OldLogprobs | None = None,
) -> Accumulation:
    """Compute the gradients of all rows of a mini-batch, in all processes of distributed training.

    Their sum is stored in the policy's parameters. The result has the metrics. ``old``: log-probs by the
    weights before the batch's first optimizer step. They are used only if ``begin.measured`` is true. Raises
    Preempted if ``should_stop`` returns True.
    """
    with followers.watched():
        followers.tell_all(begin)
        work = Accumulation(policy, begin, followers.team, old)
        _compute(work, _rounds(policy, rows, begin.settings, followers), followers, should_stop)
        followers.tell_all(Finish())
        work.finish()
    return work


def _compute(
    work: OldLogprobs | Accumulation,
    chunks: Iterator[list[list[PackedRow]]],
    followers: Followers,
    should_stop: Callable[[], bool],
) -> None:
    """Compute the old log-probs, or the gradients, of many micro-batches in all processes.

    ``chunks`` has lists of micro-batches, one for each process: the first one for this process, the others
    for the followers. On a GPU the CPU does not wait for a result here. So the next micro-batch is built and
    copied while the GPU computes this one. Raises Preempted if ``should_stop`` returns True.
    """
    for mine, *theirs in chunks:
        if should_stop():
            raise Preempted("the run was asked to stop during an update")
        followers.tell([Compute(chunk) for chunk in theirs])
        work.add(mine)


def _rounds(
    policy: Policy, rows: Sequence[PackedRow], settings: UpdateSettings, followers: Followers
) -> Iterator[list[list[PackedRow]]]:
    return rounds(rows, settings.micro_batch_tokens, followers.team.size, flat=policy.forms.flat)


def rounds(
    rows: Sequence[PackedRow], max_tokens: int, processes: int, *, flat: bool = False
) -> Iterator[list[list[PackedRow]]]:
    """Yield rounds of micro-batches. A round is a list with one micro-batch (a list of rows) per process.

    If the base model is sharded, all processes must make the same number of forward passes, because each pass
    gathers the layers from all processes. So in the last round, processes without a micro-batch get a fully
    masked row. If each process has the whole base model, this row is not needed. It is added nevertheless,
    because it costs no time: the other processes compute meanwhile.

    - ``max_tokens``: maximum number of tokens of a micro-batch, including padding.
    - ``flat``: whether the rows of a micro-batch are concatenated, so that they are not padded.
    """
    chunks = micro_batches(rows, max_tokens, flat=flat)
    while found := list(islice(chunks, processes)):
        shortest = min(found[-1], key=lambda row: row.length)
        yield found + [[shortest.masked()] for _ in range(processes - len(found))]
