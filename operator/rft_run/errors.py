"""Defines all errors that end the trainer, as one class tree. An error's exit code tells the operator whether
to retry the run.

TrainerError            unexpected; a retry may succeed
├── ConfigurationError  the same input would fail again
│   ├── ModelError      the base model, or the adapter to start from, is missing or not usable
│   │   └── HubError    the model hub does not answer, or refuses; a retry may succeed
│   ├── InputsChanged   rows, graders or model changed since the run began
│   └── NoCheckpointReadable  none of the run's checkpoints can be read
├── DataError           rows that cannot be read or rendered; the message has the line numbers
├── UserCodeError       a grader fails and ends the run
├── MemoryExhausted     the memory is too small for the update or the sampler
├── VolumeError         the run's folder cannot be written
├── SamplerError        the sampler does not start, or fails again after restarts
├── SamplerMismatch     the sampler gives tokens other probabilities than the policy that is trained
├── Preempted           stopped by a signal; the state is saved in a checkpoint
└── Fenced              a newer attempt (a later start of the trainer) owns the run's folder
"""

from rft_run.exit_codes import ExitCode


class TrainerError(Exception):
    """Base class of all errors that end the trainer. The trainer exits with ``exit_code``."""

    exit_code = ExitCode.UNEXPECTED


class ConfigurationError(TrainerError):
    """The configuration of the run is not usable. A retry would fail in the same way."""

    exit_code = ExitCode.CONFIGURATION


class ModelError(ConfigurationError):
    """The base model, or the adapter from which training starts, is missing or cannot be used."""


class HubError(ModelError):
    """The model hub did not answer, or refused the request. A retry of the run may succeed."""

    exit_code = ExitCode.UNEXPECTED


class InputsChanged(ConfigurationError):
    """The rows, the graders or the model changed since the run began, so the run cannot be resumed.

    The message says which of them changed, and what to do.
    """


class NoCheckpointReadable(ConfigurationError):
    """None of the checkpoints in the run's folder can be read. The message has the reason for each
    checkpoint.
    """


class DataError(TrainerError):
    """Rows of a dataset cannot be read or used. The message has the line numbers of these rows."""

    exit_code = ExitCode.DATA


class UserCodeError(TrainerError):
    """The user's graders end the run. For example, a grader cannot be loaded, a grader with ``onError: fail``
    fails, or graders fail for most completions of a step.
    """

    exit_code = ExitCode.USER_CODE


class MemoryExhausted(TrainerError):
    """The memory is too small for a forward or backward pass, or for the sampler."""

    exit_code = ExitCode.OUT_OF_MEMORY


class VolumeError(TrainerError):
    """The run's folder cannot be written."""

    exit_code = ExitCode.VOLUME


class SamplerError(TrainerError):
    """The sampler, which generates the rollouts, does not start, or fails again after restarts."""

    exit_code = ExitCode.SAMPLER


class SamplerMismatch(TrainerError):
    """The sampler does not sample from the policy that is trained: its log-probabilities of the sampled
    tokens differ too much from those of the trainer.
    """

    exit_code = ExitCode.SAMPLER_MISMATCH


class Preempted(TrainerError):
    """SIGTERM or SIGINT stopped the run. A checkpoint has the state after the last complete step."""

    exit_code = ExitCode.PREEMPTED


class Fenced(TrainerError):
    """A newer attempt (a later start of the trainer) owns the run's folder, so this attempt must stop writing
    into it.
    """

    exit_code = ExitCode.FENCED


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that is not blank, or the name of the error's class."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)
