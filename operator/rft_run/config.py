"""Defines the configuration files of the trainer and of its grader container, and the paths in their pod.

The trainer's configuration has the spec of the RFTJob as it was when the run began. The operator writes it
into an immutable ConfigMap. ``rft run``, which trains on the user's machine, writes it into the run's folder.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from rft_api import rules
from rft_api.base import Int, Model, known
from rft_api.defaults import JobDefaults, accelerator_of, inherit
from rft_api.environment import ENVIRONMENT
from rft_api.graders import Grader
from rft_api.job import RFTJobSpec
from rft_api.problems import InvalidManifest, from_validation_error
from rft_api.sources import Dataset
from rft_api.status import Device, Effective, Plan
from rft_run import wire

CONFIG_FILE = "run.json"

# Paths inside the trainer's pod.
CONFIG_DIR = "/etc/rft/config"
CA_DIR = "/etc/rft/ca"
TOKEN_DIR = "/var/run/rft/token"
DATASET_DIR = "/data/train"
EVALUATION_DIR = "/data/evaluation"
RUNS_DIR = "/runs"
GRADER_DIR = "/run/rft-grader"
GRADER_SOCKET = f"{GRADER_DIR}/grader.sock"
GRADER_CODE_DIR = "/etc/rft/graders"
"""Folder in the pod with the code of python graders from ConfigMaps. The path of a file in it is
``GRADER/KEY``: the grader's name, and the key in its ConfigMap."""
SECRETS_DIR = "/etc/rft/secrets"
SCRATCH_DIR = "/scratch"
CACHE_DIR = "/var/cache/rft"
"""Folder in the pod where models from the hub are cached. It exists only if the job has a volume for them."""

TRAINER_CONTAINER = "trainer"
GRADER_CONTAINER = "grader"


class JobIdentity(Model):
    """The RFTJob that a run belongs to: its name, its namespace and its UID."""

    name: str = Field(min_length=1)
    namespace: str = Field(min_length=1)
    uid: str = Field(min_length=1)


class ReportTarget(Model):
    """Where the trainer sends its reports of progress: the operator's URL, a file with CA certificates to
    verify the operator, and a file with the token of the trainer's pod.
    """

    url: str = Field(pattern=r"^https://.+")
    ca_file: str
    token_file: str


class RunConfig(Model):
    """The configuration of a trainer: the content of FILE in ``python -m rft_trainer --config FILE``."""

    version: Literal[1] = 1
    job: JobIdentity
    spec: RFTJobSpec
    effective: Effective
    plan: Plan | None = None
    defaults: JobDefaults | None = Field(
        None,
        description="Defaults of the platform when the run began. Absent if there were none, and in rft run.",
    )
    device: Device = "cpu"
    gpus: Int = Field(0, ge=0)
    run_dir: str = Field(description="Absolute path of the run's folder.")
    dataset_path: str = Field(description="Absolute path or URI of the training rows.")
    evaluation_path: str | None = Field(
        None, description="Absolute path or URI of separate evaluation rows, if there are any."
    )
    grader_code: dict[str, str] | None = Field(
        None, description="Path of the source file of each python grader without inline source, by name."
    )
    grader_socket: str | None = Field(
        None, description="Socket of the grader container. If absent, graders run as local processes."
    )
    scratch_dir: str | None = Field(None, description="Fast local folder for sockets and temporary files.")
    report: ReportTarget | None = Field(None, description="Where reports are sent. Absent in rft run.")

    @property
    def pod_spec(self) -> RFTJobSpec:
        """The spec from which the operator makes the trainer's pod: ``spec``, with absent fields filled from
        the platform's defaults. It is ``spec`` itself if there are no defaults or no plan.
        """
        if self.defaults is None or self.plan is None:
            return self.spec
        return inherit(self.spec, self.defaults, accelerator_of(self.plan)).spec


def dataset_path(dataset: Dataset, folder: str) -> str:
    """Return where the trainer reads the rows of a dataset: a path in its pod, or the dataset's URI.

    ``folder`` is the path at which the pod mounts the dataset's ConfigMap or PersistentVolumeClaim.
    """
    if dataset.config_map is not None:
        return str(PurePosixPath(folder, dataset.config_map.key))
    if dataset.persistent_volume_claim is not None:
        return str(PurePosixPath(folder, dataset.persistent_volume_claim.path))
    return dataset.uri or ""


def read_run_config(text: str) -> RunConfig:
    """Return the trainer's configuration from ``text``, which is JSON. Ignore fields that this release does
    not know.

    Raises:
        InvalidManifest: if the configuration is not valid. The error lists all problems, worded as for an
            invalid manifest of an RFTJob.
    """
    try:
        config = wire.read(RunConfig, text)
    except ValidationError as error:
        raise InvalidManifest(from_validation_error(error, RunConfig)) from error
    if problems := rules.problems(config.spec):
        raise InvalidManifest(problems)
    return config


GRADER_CONFIG_DIR = "/etc/rft/grader"
"""Folder in the pod with the configuration of the grader container. Only the grader container mounts it."""
GRADER_CONFIG_FILE = "graders.json"


class PythonGrader(Model):
    """A python grader, or the environment of a job, in the configuration of the grader container. The code is
    in ``inline``, or in the file ``sourcePath``.
    """

    name: str = Field(min_length=1)
    function: str = "grade"
    inline: str | None = None
    source_path: str | None = Field(None, description="File with the Python source.")
    timeout_seconds: float = Field(gt=0, description="Time limit of one score, in seconds.")
    slots: Int | None = Field(
        None,
        ge=1,
        description=(
            "Number of rollouts of an environment that run at once, each in its own process. It is set only"
            " if the code is an environment; function then names the class. If absent, the code is a grader."
        ),
    )

    @model_validator(mode="after")
    def _one_source(self) -> "PythonGrader":
        if (self.inline is None) == (self.source_path is None):
            raise ValueError("set exactly one of inline and sourcePath")
        return self


_PROCESSES = 64
"""Maximum number of processes that the code of all python graders together may start.

The processes of the grader container itself are not counted: the workers, which run the code, and the guards,
which are the parent processes of the workers."""
_PROCESSES_OF_A_SLOT = 4
"""Number of additional processes that are allowed for each rollout of the environment that runs at once."""


def grader_config(spec: RFTJobSpec, code: Mapping[str, str]) -> "GraderConfig":
    """Return the configuration of the grader container, which runs the job's python graders and environment.

    ``code`` has the path of the source file of each grader without inline source, by the grader's name.
    Raises KeyError with the grader's name if ``code`` lacks a grader.
    """
    slots = spec.environment.concurrency if spec.environment is not None else None
    graders = python_graders(spec.scored_by, code, slots)
    return GraderConfig(graders=graders, max_processes=max_processes(slots))


def max_processes(slots: int | None) -> int:
    """Return the maximum number of processes that the code of a job's graders and environment may start.

    The processes in which this code itself runs are not counted. ``slots`` is the number of rollouts of the
    environment that run at once. None: the job has no environment.
    """
    return _PROCESSES + _PROCESSES_OF_A_SLOT * (slots or 0)


class GraderConfig(Model):
    """The configuration of the grader container, for ``python -m rft_graders.serve``: users' code and its
    limits.
    """

    version: Literal[1] = 1
    graders: list[PythonGrader]
    workers: Int = Field(2, ge=1, le=64, description="Number of worker processes per grader.")
    memory_mebibytes: Int = Field(
        1024, ge=64, description="Maximum memory of all processes of users' code together, in MiB."
    )
    max_processes: Int = Field(_PROCESSES, ge=1, description="Maximum number of processes of users' code.")


def python_graders(
    graders: Sequence[Grader], code: Mapping[str, str], slots: int | None = None
) -> list[PythonGrader]:
    """Return the python graders among ``graders``, as the grader container's configuration lists them.

    - ``code`` has the path of the source file of each grader without inline source, by the grader's name.
    - ``slots`` is the number of rollouts of the environment that run at once. It is needed only if one of
      ``graders`` is the job's environment.

    Raises KeyError with the grader's name if a grader has no inline source and is not in ``code``.
    """
    found = []
    for grader in graders:
        if (python := grader.python) is not None:
            inline = python.inline is not None
            source = {"inline": python.inline} if inline else {"source_path": code[grader.name]}
            found.append(
                PythonGrader(
                    name=grader.name,
                    function=python.function,
                    timeout_seconds=grader.timeout_seconds,
                    **known(slots=slots if grader.name == ENVIRONMENT else None),
                    **source,
                )
            )
    return found
