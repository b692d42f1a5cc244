"""A Python client for the RFTJobs of one namespace of a cluster.

Methods that Kubeflow's SDK also has, such as ``get_job_logs``, have the same names as there.
"""

import time
import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from rft_api.conditions import TERMINAL_PHASES
from rft_api.job import RFTJob, RFTJobSpec
from rft_api.problems import InvalidManifest, join_path
from rft_api.status import RFTJobStatus
from rft_api.validation import parse
from rft_cli.errors import UserError

WAIT_SECONDS = 24 * 3600.0
POLL_SECONDS = 5.0


class Job(NamedTuple):
    """An RFTJob as the API server returned it: its name, namespace, spec and status at that time. Later
    changes in the cluster do not change this object.
    """

    name: str
    namespace: str
    spec: RFTJobSpec
    status: RFTJobStatus
    """The status that the operator has written. It has no phase and no results until the operator has
    processed the job for the first time."""

    @property
    def phase(self) -> str:
        """The phase in the status, such as ``Running``. It is ``Pending`` if the operator has not processed
        the job yet.
        """
        return self.status.phase or "Pending"


class Client:
    """A client for the RFTJobs of one namespace. Each method raises ``rft.RFTError`` if the API server
    refuses a request or does not answer.
    """

    def __init__(self, namespace: str | None = None, context: str | None = None) -> None:
        """Connect to a cluster with the kubeconfig, as the command ``rft`` does. In a pod without a
        kubeconfig, connect with the pod's service account.

        - ``namespace``: the namespace of all jobs. If None, it is the namespace of the kubeconfig's context,
          or ``default`` if the context has none or there is no kubeconfig.
        - ``context``: the context in the kubeconfig. If None, the current context is used.

        Raises RFTError if there is no usable kubeconfig and no service account, or no such context.
        """
        # Imported here, because this import takes a second, and programs that only build jobs do not need it.
        from rft_cli.cluster.client import ClusterClient

        self._cluster = ClusterClient(context, namespace)

    @property
    def namespace(self) -> str:
        """The namespace to which all methods of this client apply."""
        return self._cluster.namespace

    def submit(self, job: RFTJob, *, dry_run: bool = False) -> str:
        """Create or update a job in the cluster. Return ``created``, ``configured`` or ``unchanged``, as
        ``kubectl apply`` prints.

        The job is applied in the namespace of this client, even if ``metadata.namespace`` of the job is
        another one. With ``dry_run`` the API server checks everything and stores nothing. If the job is not
        valid, RFTError is raised and nothing is sent.
        """
        body = {key: value for key, value in job.dump().items() if key != "status"}
        try:
            parse(body)
        except InvalidManifest as error:
            raise UserError(f"{job.metadata.name}: {error}") from error
        body["metadata"] = {
            "name": job.metadata.name,
            "namespace": self.namespace,
            "labels": dict(job.metadata.labels),
            "annotations": dict(job.metadata.annotations),
        }
        with self._cluster.applying(dry_run=dry_run) as apply:
            return apply(body)

    def list_jobs(self) -> list[Job]:
        """Return all RFTJobs in the namespace of this client.

        A job that this client cannot read, such as one with a field of a newer release, is left out with a
        Python warning.
        """
        jobs = []
        for body in self._cluster.jobs():
            try:
                jobs.append(_job(body))
            except UserError as error:
                warnings.warn(f"left out of the list: {error}", stacklevel=2)
        return jobs

    def get_job(self, name: str) -> Job:
        """Return the RFTJob with this name, with its current spec and status. Raises RFTError if it does not
        exist.
        """
        return _job(self._cluster.job(name))

    def get_job_logs(
        self, name: str, *, follow: bool = False, container: str = "trainer", tail: int | None = None
    ) -> Iterator[str]:
        """Return an iterator over the log lines of one container, in the newest pod of a job.

        - ``follow``: whether to wait for new lines until the container ends.
        - ``container``: ``trainer``, or ``grader``, which runs users' code.
        - ``tail``: return only this number of lines from the end of the log. None: return all lines.

        Raises RFTError if the job has no pod.
        """
        pod = self._cluster.newest_pod(self._cluster.job(name))
        return self._cluster.log_lines(pod["metadata"]["name"], container, follow=follow, tail=tail)

    def watch_job(self, name: str) -> Iterator[Job]:
        """Yield a job in its current state, and again after each change of its spec or status. Stop when its
        phase is Succeeded, Failed or Cancelled.

        The status also changes when the trainer reports a step. The phase Invalid is not an end: such a job
        runs after its spec is corrected.
        """
        for body in self._cluster.changes(name):
            job = _job(body)
            yield job
            if job.phase in TERMINAL_PHASES:
                return

    def wait_for_job_status(
        self,
        name: str,
        status: Collection[str] = ("Succeeded",),
        timeout: float = WAIT_SECONDS,
        polling_interval: float = POLL_SECONDS,
    ) -> Job:
        """Wait until the phase of a job is one of ``status``, and return the job.

        - ``timeout``: the maximum time to wait, in seconds.
        - ``polling_interval``: the time between two requests to the API server, in seconds.

        Raises TimeoutError after ``timeout`` seconds. Raises RFTError if the job ends (Succeeded, Failed or
        Cancelled) in a phase that is not in ``status``.
        """
        ends = time.monotonic() + timeout
        while True:
            job = self.get_job(name)
            if job.phase in status:
                return job
            if job.phase in TERMINAL_PHASES:
                raise UserError(
                    f"{name}: ended as {job.phase}: {job.status.message or 'its status has no message'}"
                )
            left = ends - time.monotonic()
            if left <= 0:
                wanted = " or ".join(status)
                raise TimeoutError(f"{name}: is {job.phase} after {timeout:g} s, and not {wanted}")
            time.sleep(min(polling_interval, left))

    def suspend_job(self, name: str) -> None:
        """Set ``spec.suspend`` of a job: its trainer saves a checkpoint, and its pod ends, so that the GPUs
        are free. Does not wait until the job is suspended.
        """
        self._cluster.change_spec(name, {"suspend": True})

    def resume_job(self, name: str) -> None:
        """Resume a suspended job from its newest checkpoint. Does not wait until the job runs."""
        self._cluster.change_spec(name, {"suspend": False})

    def cancel_job(self, name: str) -> None:
        """End a job permanently. Its trainer saves a checkpoint first. Does not wait until it has ended."""
        self._cluster.change_spec(name, {"cancel": True})


def _job(body: Mapping[str, Any]) -> Job:
    name = str(body["metadata"]["name"])
    part = "spec"
    try:
        spec = RFTJobSpec.model_validate(body.get("spec") or {})
        part = "status"
        status = RFTJobStatus.model_validate(body.get("status") or {})
    except ValidationError as error:
        raise UserError(f"{name}: {_unreadable(part, error)}") from error
    return Job(name, str(body["metadata"].get("namespace", "default")), spec, status)


def _unreadable(part: str, error: ValidationError) -> str:
    """Return why a job cannot be read. ``part``: the part with the error, ``spec`` or ``status``."""
    first = error.errors()[0]
    field = join_path((part, *first["loc"]))
    if first["type"] == "extra_forbidden":
        return f"{field} is not known to this client; install the version that the operator has"
    return (
        f"{field}: this client cannot read the value ({first['msg']}); if the operator is newer, install its"
        " version"
    )
