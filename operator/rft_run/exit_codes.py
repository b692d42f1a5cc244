"""Defines the exit codes of the trainer. The pod failure policy of the child Job, in which the trainer runs,
and the operator decide by these codes whether to retry.
"""

from enum import IntEnum

from rft_api.conditions import Reason


class ExitCode(IntEnum):
    """The exit codes of the trainer. Each stands for a reason why the trainer ended.

    After an exit code in ``PERMANENT``, the run is not retried, because it would fail again.
    """

    OK = 0
    UNEXPECTED = 1
    CONFIGURATION = 10
    DATA = 11
    USER_CODE = 12
    OUT_OF_MEMORY = 13
    SAMPLER_MISMATCH = 14
    VOLUME = 20
    SAMPLER = 21
    PREEMPTED = 75
    FENCED = 76


PERMANENT = (ExitCode.CONFIGURATION, ExitCode.DATA, ExitCode.USER_CODE, ExitCode.SAMPLER_MISMATCH)
"""Exit codes after which the child Job fails without a retry (FailJob in its podFailurePolicy)."""

UNCOUNTED = (ExitCode.PREEMPTED, ExitCode.FENCED)
"""Exit codes after which the attempt does not count as a failure for the job's ``retry.limit``."""

REASONS: dict[int, str] = {
    ExitCode.UNEXPECTED: Reason.TRAINER_FAILED,
    ExitCode.CONFIGURATION: Reason.CONFIGURATION,
    ExitCode.DATA: Reason.DATA,
    ExitCode.USER_CODE: Reason.USER_CODE,
    ExitCode.OUT_OF_MEMORY: Reason.OUT_OF_MEMORY,
    ExitCode.SAMPLER_MISMATCH: Reason.SAMPLER_MISMATCH,
    ExitCode.VOLUME: Reason.VOLUME,
    ExitCode.SAMPLER: Reason.TRAINER_FAILED,
}
