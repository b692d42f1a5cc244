"""Explains the exit codes of the trainer in ``rft run``, and says what the user can do next.

What to do may depend on the checkpoints of the run.
"""

from typing import NamedTuple

from rft_cli.local.process import INTERRUPTED
from rft_run.checkpoint import newest_usable
from rft_run.exit_codes import ExitCode
from rft_run.folder import RunFolder


class Explanation(NamedTuple):
    """The explanation of an exit code of the trainer.

    - ``what``: what happened.
    - ``fix``: what the user can do next. Empty if there is nothing to do.
    """

    what: str
    fix: str


RESUME = "the same command resumes from the checkpoint of step {step}"
RESTART = "there is no checkpoint yet, so the same command begins again with step 1"
UNREADABLE = "no checkpoint of the run can be read, so the same command does not resume; see the log"
_AGAIN = "{again}"
"""Placeholder in texts of ``ENDINGS``. The sentence that ``again`` returns replaces it."""

ENDINGS: dict[int, Explanation] = {
    ExitCode.OK: Explanation("complete", ""),
    ExitCode.UNEXPECTED: Explanation("the trainer failed", f"see the log; {_AGAIN}"),
    ExitCode.CONFIGURATION: Explanation(
        "the trainer refused its configuration or its inputs", "correct what the message names"
    ),
    ExitCode.DATA: Explanation("the rows of the dataset cannot be used", "correct what the message names"),
    ExitCode.USER_CODE: Explanation(
        "a grader failed, and its onError is fail", "correct the grader; see the log"
    ),
    ExitCode.OUT_OF_MEMORY: Explanation(
        "out of memory",
        "lower training.batchSizeTokens, sampling.maxTokens or training.loraRank, and start a new run in"
        " another --output folder",
    ),
    ExitCode.SAMPLER_MISMATCH: Explanation(
        "the sampler does not sample from the policy that is trained",
        "see the message; spec.sampling.engine: transformers samples without vLLM",
    ),
    ExitCode.VOLUME: Explanation(
        "the output folder cannot be written", f"free space on its disk, or get the right to write; {_AGAIN}"
    ),
    ExitCode.SAMPLER: Explanation(
        "the sampler did not start, or did not start again after it ended",
        "see vLLM's lines in the log; spec.sampling.engine: transformers works without vLLM",
    ),
    ExitCode.PREEMPTED: Explanation("stopped", _AGAIN),
    ExitCode.FENCED: Explanation("another trainer now writes to this folder", "use another --output folder"),
    INTERRUPTED: Explanation("killed", _AGAIN),
    137: Explanation("killed by SIGKILL, often for lack of memory", f"free some memory; {_AGAIN}"),
}


def explain(exit_code: int, folder: RunFolder) -> Explanation:
    """Return what an exit code of the trainer means, and what the user can do next.

    An unknown code, or the code of a signal, is explained too. ``folder`` is the folder of the run. The
    explanation may say what the same ``rft run`` command would do, which depends on the checkpoints in the
    folder.
    """
    found = ENDINGS.get(exit_code)
    if found is None:
        died = f"died of signal {exit_code - 128}" if exit_code > 128 else f"ended with code {exit_code}"
        found = Explanation(f"the trainer {died}", f"see the log; {_AGAIN}")
    return found._replace(fix=found.fix.replace(_AGAIN, again(folder)))


def again(folder: RunFolder) -> str:
    """Return a sentence about what happens if the user repeats the same ``rft run`` command.

    The command resumes from the newest checkpoint in the run's ``folder``, begins again, or cannot resume.
    """
    try:
        step = newest_usable(folder)
    except OSError as error:
        return f"{folder.checkpoints} cannot be read: {error.strerror}"
    if step is not None:
        return RESUME.format(step=step)
    return UNREADABLE if folder.steps_with_checkpoint() else RESTART
