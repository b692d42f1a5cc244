"""Explains the trainer's exit codes, and says what to do."""

from typing import NamedTuple

from rft_cli.local.process import INTERRUPTED
from rft_run.exit_codes import ExitCode


class Explanation(NamedTuple):
    """The explanation of an exit code."""

    what: str
    fix: str


RESUME = "the same command resumes from the last checkpoint"

ENDINGS: dict[int, Explanation] = {
    ExitCode.OK: Explanation("complete", ""),
    ExitCode.UNEXPECTED: Explanation("the trainer failed", f"see the log; {RESUME}"),
    ExitCode.CONFIGURATION: Explanation(
        "the trainer refused its configuration", "correct the manifest or the model's path"
    ),
    ExitCode.DATA: Explanation("the rows cannot be used", "correct what the message names"),
    ExitCode.USER_CODE: Explanation("a grader with onError: fail failed", "correct the grader; see the log"),
    ExitCode.OUT_OF_MEMORY: Explanation(
        "out of memory",
        "lower training.batchSizeTokens, sampling.maxTokens or training.loraRank, with a new --output",
    ),
    ExitCode.VOLUME: Explanation(
        "the output folder cannot be written", f"make room or rights there; {RESUME}"
    ),
    ExitCode.SAMPLER: Explanation(
        "the sampler did not start or come back",
        "see vLLM's lines in the log; spec.sampling.engine: transformers works without vLLM",
    ),
    ExitCode.PREEMPTED: Explanation("stopped with a checkpoint", RESUME),
    ExitCode.FENCED: Explanation("another trainer has taken over this folder", "use a new --output"),
    INTERRUPTED: Explanation("killed", RESUME),
    137: Explanation("killed by SIGKILL, often for want of memory", f"free some; {RESUME}"),
}


def explain(exit_code: int) -> Explanation:
    """Return the explanation of an exit code, also for signals and unknown codes."""
    if exit_code in ENDINGS:
        return ENDINGS[exit_code]
    if exit_code > 128:
        return Explanation(f"the trainer died of signal {exit_code - 128}", f"see the log; {RESUME}")
    return Explanation(f"the trainer ended with code {exit_code}", f"see the log; {RESUME}")
