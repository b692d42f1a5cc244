"""Computes the trainer's log-probs of given rows, without gradients, in all processes at the same time."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rft_trainer.learn.logprobs import TokenLogprobs, token_logprobs
from rft_trainer.learn.packing import PackedRow
from rft_trainer.learn.policy import Policy
from rft_trainer.learn.ranks import Followers, Team
from rft_trainer.rollout.filter import Filter


@dataclass(frozen=True)
class Measure:
    """Command to all followers: compute log-probs of these rows with the leader's adapter.

    If the layers are sharded over all processes, each process has to make the same forward pass.
    """

    rows: list[PackedRow]
    filter: Filter


def measure(
    policy: Policy, followers: Followers, rows: Sequence[PackedRow], settings: Filter
) -> TokenLogprobs:
    """Return the log-probs of the rows' trained tokens by the current policy, in one forward pass."""
    order = Measure(list(rows), settings)
    with followers.watched():
        followers.tell_all(order)
        return compute(policy, order, followers.team)


@torch.no_grad()
def compute(policy: Policy, order: Measure, team: Team) -> TokenLogprobs:
    """Return the log-probs of the rows in ``order``. The leader and every follower call this function."""
    team.broadcast([parameter.data for parameter in policy.trainable()])
    batch = policy.batch(order.rows)
    return token_logprobs(policy.hidden(batch), batch.target_N, policy.head, order.filter)
