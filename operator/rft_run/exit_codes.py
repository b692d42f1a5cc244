"""Exit codes of the trainer. The child Job's failure policy and the operator act on them."""

from enum import IntEnum

from rft_api.conditions import Reason


class ExitCode(IntEnum):
    """The exit codes of a trainer. Each stands for a reason why the trainer ended.

    If a retry would fail again, the exit code is in ``PERMANENT``.
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
"""Exit codes of attempts that do not count as failures for ``retry.limit``."""

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
