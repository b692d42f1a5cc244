"""Computes the policy's log-probs of given rows, without gradients, in all processes at the same time."""

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
    """Command to the other processes of distributed training: compute log-probs of these rows.

    All processes compute the same rows with the leader's adapter. This is necessary if the layers of the
    model are sharded. ``filter``: the temperature, top-k and top-p of the log-probs.
    """

    rows: list[PackedRow]
    filter: Filter


def measure(
    policy: Policy, followers: Followers, rows: Sequence[PackedRow], settings: Filter
) -> TokenLogprobs:
    """Return the log-probs of the rows' trained tokens by the current policy, in nats.

    They are computed in one forward pass, which the processes of ``followers`` make too. ``settings``: the
    temperature, top-k and top-p of the log-probs.
    """
    order = Measure(list(rows), settings)
    with followers.watched():
        followers.tell_all(order)
        return compute(policy, order, followers.team)


@torch.no_grad()
def compute(policy: Policy, order: Measure, team: Team) -> TokenLogprobs:
    """Return the log-probs of the trained tokens of the rows in ``order``, with the leader's adapter.

    All processes of distributed training call this function at the same time.
    """
    team.broadcast([parameter.data for parameter in policy.trainable()])
    batch = policy.batch(order.rows)
    return token_logprobs(policy.hidden(batch), batch.target_N, policy.head, order.filter)
