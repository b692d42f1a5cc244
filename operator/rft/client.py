"""A client for the RFTJobs of one namespace of a cluster.

A method that Kubeflow's SDK also has, such as ``get_job_logs``, has the same name as there.
"""

import time
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
    """An RFTJob as it was in the cluster when it was read."""

    name: str
    namespace: str
    spec: RFTJobSpec
    status: RFTJobStatus
    """The status that the operator has written. It has no values until the operator has processed the job."""

    @property
    def phase(self) -> str:
        """The phase, such as Running. ``Pending`` if the operator has not processed the job yet."""
        return self.status.phase or "Pending"


class Client:
    """A client for the RFTJobs of one namespace. Each method raises ``rft.RFTError`` if the API server
    refuses a request or does not answer.
    """

    def __init__(self, namespace: str | None = None, context: str | None = None) -> None:
        """Connect to a cluster with the kubeconfig, as ``rft`` does.

        In a pod without a kubeconfig, connect with the pod's service account.

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
        """The namespace of all jobs of this client."""
        return self._cluster.namespace

    def submit(self, job: RFTJob, *, dry_run: bool = False) -> str:
        """Apply a job to the cluster. Return ``created``, ``configured`` or ``unchanged``.

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
        """Return all jobs of the namespace."""
        return [_job(body) for body in self._cluster.jobs()]

    def get_job(self, name: str) -> Job:
        """Return a job with its current status."""
        return _job(self._cluster.job(name))

    def get_job_logs(
        self, name: str, *, follow: bool = False, container: str = "trainer", tail: int | None = None
    ) -> Iterator[str]:
        """Return an iterator over the lines of the log of the job's newest pod.

        - ``follow``: whether to wait for new lines until the container ends.
        - ``container``: ``trainer``, or ``grader``, which runs users' code.
        - ``tail``: the number of last lines to return. None: all lines.

        Raises RFTError if the job has no pod.
        """
        pod = self._cluster.newest_pod(self._cluster.job(name))
        return self._cluster.log_lines(pod["metadata"]["name"], container, follow=follow, tail=tail)

    def watch_job(self, name: str) -> Iterator[Job]:
        """Yield a job now, and again after each change, until its phase is Succeeded, Failed or Cancelled.

        Each step that the trainer reports is a change too. A job in the phase Invalid has not ended, because
        it runs once its spec is corrected.
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

        - ``status``: the phases to wait for.
        - ``timeout``: the maximum time to wait, in seconds.
        - ``polling_interval``: the time between two requests for the job, in seconds.

        Raises TimeoutError after ``timeout`` seconds. Raises RFTError if the job ends in another phase:
        Succeeded, Failed or Cancelled.
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
        """Suspend a job. The job saves a checkpoint and releases its GPUs. Does not wait for this."""
        self._cluster.change_spec(name, {"suspend": True})

    def resume_job(self, name: str) -> None:
        """Resume a suspended job. The job continues from its checkpoint. Does not wait until the job runs."""
        self._cluster.change_spec(name, {"suspend": False})

    def cancel_job(self, name: str) -> None:
        """Cancel a job. The job saves a checkpoint and ends permanently. Does not wait for this end."""
        self._cluster.change_spec(name, {"cancel": True})


def _job(body: Mapping[str, Any]) -> Job:
    name = str(body["metadata"]["name"])
    try:
        spec = RFTJobSpec.model_validate(body["spec"])
        status = RFTJobStatus.model_validate(body.get("status") or {})
    except ValidationError as error:
        field = join_path(error.errors()[0]["loc"])
        raise UserError(
            f"{name}: {field} is not known to this client; install the version that the operator has"
        ) from error
    return Job(name, str(body["metadata"].get("namespace", "default")), spec, status)
