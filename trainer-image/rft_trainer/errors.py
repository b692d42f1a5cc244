"""Everything a run can end with, as one tree; each knows the exit code that tells the operator what to do.

TrainerError            unexpected, may pass
├── ConfigurationError  the same input fails again
│   └── ModelError      the base model is not there or not usable
├── DataError           rows that cannot be read or rendered; carries every line number
├── UserCodeError       a grader fails the run
├── MemoryExhausted     the update does not fit
├── VolumeError         the run's folder cannot be written
├── SamplerError        vLLM does not start or does not come back
├── Preempted           asked to stop; the state is checkpointed
└── Fenced              a newer attempt owns the run's folder
"""

from rft_api.exitcodes import ExitCode


class TrainerError(Exception):
    """Base of the tree."""

    exit_code = ExitCode.UNEXPECTED


class ConfigurationError(TrainerError):
    """The run's configuration cannot work."""

    exit_code = ExitCode.CONFIGURATION


class ModelError(ConfigurationError):
    """The base model or warm-start adapter is missing or unusable."""


class HubError(ModelError):
    """The hub did not answer or refused; another attempt may fare better."""

    exit_code = ExitCode.UNEXPECTED


class DataError(TrainerError):
    """Rows that cannot be used; the message names every line."""

    exit_code = ExitCode.DATA


class UserCodeError(TrainerError):
    """A grader whose errors fail the run."""

    exit_code = ExitCode.USER_CODE


class MemoryExhausted(TrainerError):
    """A forward or backward pass ran out of memory."""

    exit_code = ExitCode.OUT_OF_MEMORY


class VolumeError(TrainerError):
    """The run's folder cannot be written."""

    exit_code = ExitCode.VOLUME


class SamplerError(TrainerError):
    """The sampler does not start, or does not come back after a restart."""

    exit_code = ExitCode.SAMPLER


class Preempted(TrainerError):
    """SIGTERM or SIGINT: the state of the last whole step is on disk."""

    exit_code = ExitCode.PREEMPTED


class Fenced(TrainerError):
    """A newer attempt owns the run's folder: this one may not write any more."""

    exit_code = ExitCode.FENCED
