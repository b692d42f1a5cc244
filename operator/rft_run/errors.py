"""All errors that end a run, as one class tree. Each has an exit code, from which the operator decides.

TrainerError            unexpected; a retry may succeed
├── ConfigurationError  the same input fails again
│   ├── ModelError      the base model is not there or not usable
│   ├── InputsChanged   rows, graders or model are not those that the run began with
│   └── NoCheckpointReadable  there are checkpoints, and none can be read
├── DataError           rows that cannot be read or rendered; carries every line number
├── UserCodeError       a grader fails the run
├── MemoryExhausted     the update does not fit
├── VolumeError         the run's folder cannot be written
├── SamplerError        vLLM does not start or does not come back
├── SamplerMismatch     the sampler's log-probs are not those of the policy that is trained
├── Preempted           asked to stop; the state is checkpointed
└── Fenced              a newer attempt owns the run's folder
"""

from rft_run.exit_codes import ExitCode


class TrainerError(Exception):
    """Base class of all errors that end a run."""

    exit_code = ExitCode.UNEXPECTED


class ConfigurationError(TrainerError):
    """The run's configuration cannot work."""

    exit_code = ExitCode.CONFIGURATION


class ModelError(ConfigurationError):
    """The base model or warm-start adapter is missing or unusable."""


class HubError(ModelError):
    """The hub did not answer or refused; a retry may succeed."""

    exit_code = ExitCode.UNEXPECTED


class InputsChanged(ConfigurationError):
    """An input has changed since the run began; the message says which one, and what to do."""


class NoCheckpointReadable(ConfigurationError):
    """The run's folder has checkpoints, and none can be read; the message gives the reason for each."""


class DataError(TrainerError):
    """Rows that cannot be used; the message names the lines."""

    exit_code = ExitCode.DATA


class UserCodeError(TrainerError):
    """A grader does not load, fails with ``onError: fail``, or fails for most completions of a step."""

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


class SamplerMismatch(TrainerError):
    """The sampler samples from something else than the policy that is trained."""

    exit_code = ExitCode.SAMPLER_MISMATCH


class Preempted(TrainerError):
    """The run was stopped by SIGTERM or SIGINT; the state of the last complete step is on disk."""

    exit_code = ExitCode.PREEMPTED


class Fenced(TrainerError):
    """A newer attempt owns the run's folder: this one may not write any more."""

    exit_code = ExitCode.FENCED
