"""``python -m rft_trainer.learn.follower FD``: one process of distributed training, with rank 1 or higher.

The trainer, rank 0, starts this process and sends it commands over the pipe FD. The process ends when the
trainer ends.
"""

import logging
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

import torch

from rft_run.errors import TrainerError
from rft_run.exit_codes import ExitCode
from rft_trainer.learn.gradients import Accumulation, Begin, BeginOld, Compute, OldLogprobs
from rft_trainer.learn.measure import Measure, compute
from rft_trainer.learn.policy import Policy, PolicyOptions
from rft_trainer.learn.ranks import Post, follow, join
from rft_trainer.runtime import machine
from rft_trainer.runtime.device import set_deterministic

log = logging.getLogger("rft_trainer")


def serve(pipe: Connection) -> None:
    """Join the leader, load the model, and execute the leader's commands until it closes the pipe.

    The first two messages are a ``Post`` and the ``PolicyOptions``. The next ones are commands to compute
    gradients or log-probs. Raises TrainerError, torch.OutOfMemoryError.
    """
    orders = follow(pipe)
    post: Post | None = next(orders, None)
    options: PolicyOptions | None = next(orders, None)
    if post is None or options is None:
        return
    torch.set_num_threads(machine.usable_cores())
    set_deterministic(options.training.deterministic, options.device)
    team = join(post)
    policy = Policy(options, team)
    old: OldLogprobs | None = None
    work: Accumulation | OldLogprobs | None = None
    for order in orders:
        if isinstance(order, Measure):
            compute(policy, order, team)
        elif isinstance(order, BeginOld):
            work = old = OldLogprobs(policy, order, team)
        elif isinstance(order, Begin):
            work = Accumulation(policy, order, team, old)
        elif work is not None and isinstance(order, Compute):
            work.add(order.rows)
        elif work is not None:
            work.finish()


def main(argv: list[str]) -> int:
    """Run this follower process until the leader closes the pipe. Return the exit code.

    ``argv``: the file descriptor of the pipe. If the follower fails, it sends the error's message to the
    leader.
    """
    machine.die_with_parent()
    # Signals reach the whole process group; the leader alone decides what to do about them.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    pipe = Connection(int(argv[0]))
    try:
        serve(pipe)
    except (TrainerError, RuntimeError, OSError) as error:
        code = _code(error)
        log.log(logging.ERROR, "%s", error, exc_info=error if code == ExitCode.UNEXPECTED else None)
        with suppress(OSError):  # the leader may have ended, then nobody reads the message
            pipe.send(str(error)[:2000])
        return code
    return ExitCode.OK


def _code(error: Exception) -> int:
    if isinstance(error, torch.OutOfMemoryError):
        return ExitCode.OUT_OF_MEMORY
    return error.exit_code if isinstance(error, TrainerError) else ExitCode.UNEXPECTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
