"""Reads and changes RFTJobs in a cluster, and uses pods, by the Python client of Kubernetes."""

import contextlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import kubernetes
import kubernetes.stream
import urllib3
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from kubernetes.dynamic.exceptions import NotFoundError, ResourceNotFoundError

from rft_api import GROUP, KIND, PLURAL, VERSION
from rft_api.controls import one_line
from rft_cli.cluster.process import PodProcess, Unreachable, handshake_status
from rft_cli.errors import INVALID, UNREADABLE, UserError

WATCH_SECONDS = 60
"""Duration of one watch request, in seconds. After this time, the API server ends the request.

If no data arrive for 30 seconds longer than this duration, the client closes the connection.
"""
TIMEOUT = (10, 30)
"""Timeouts of a request in seconds: to connect, and between two reads of the response."""
RETRY_SECONDS = 3.0
FIELD_MANAGER = "rft"
READING = f"get, list and watch on {PLURAL}.{GROUP}"
MAX_FAILURES = 20
"""Maximum number of consecutive failures of a watch. The next failure ends it with an error.

Before each new attempt, the client waits ``RETRY_SECONDS``: for one minute in all."""

Body = dict[str, Any]

_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""The file in which Kubernetes gives a pod the namespace of its service account."""
Applier = Callable[[Body], str]
"""A function that applies an object to the cluster and returns ``created``, ``configured`` or ``unchanged``.

It raises UserError if the server does not know the object's kind or refuses the object."""

# Typed as Any, because the client's own types are partly missing and partly wrong.
_kubernetes: Any = kubernetes


class ClusterClient:
    """A client for the RFTJobs of one namespace of a cluster.

    A method that sends a request raises UserError if the API server refuses the request, and Unreachable (a
    UserError) if the API server does not answer or has a temporary error.
    """

    def __init__(self, context: str | None = None, namespace: str | None = None) -> None:
        """Connect to the cluster of the kubeconfig: the file that ``KUBECONFIG`` names, else
        ``~/.kube/config``.

        In a pod without a kubeconfig, connect with the service account of the pod. ``context`` is the name of
        a context of the kubeconfig; None: the current one. ``namespace`` None: the namespace of the context.

        Raises:
            UserError: if there is no usable kubeconfig or no such context.
        """
        self._api, default = _connect(context)
        self.namespace = namespace or default
        self._objects = _kubernetes.client.CustomObjectsApi(self._api)
        self._core = _kubernetes.client.CoreV1Api(self._api)
        self._batch = _kubernetes.client.BatchV1Api(self._api)

    def jobs(self, *, all_namespaces: bool = False) -> list[Body]:
        """Return the RFTJobs of the namespace of this client, or of all namespaces."""
        with self._explained(f"the list of {PLURAL}"):
            if all_namespaces:
                answer = self._objects.list_cluster_custom_object(
                    GROUP, VERSION, PLURAL, _request_timeout=TIMEOUT
                )
            else:
                answer = self._objects.list_namespaced_custom_object(
                    GROUP, VERSION, self.namespace, PLURAL, _request_timeout=TIMEOUT
                )
        return list(answer["items"])

    def job(self, name: str) -> Body:
        """Return the RFTJob with this name. Raises UserError if there is none, or if no job can have it."""
        if "/" in name or name in ("", ".", ".."):  # in the URL, these would be the path of something else
            raise UserError(f"{name}: cannot be the name of a job; name one of rft get", UNREADABLE)
        with self._explained(f"{KIND} {name!r}"):
            found: Body = self._objects.get_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, name, _request_timeout=TIMEOUT
            )
        return found

    def changes(self, name: str) -> Iterator[Body]:
        """Yield an RFTJob in its present state, and again after each change. The generator never ends by
        itself.

        Raises:
            UserError: if the job does not exist, or was deleted.
            Unreachable: if the first request has no answer, or the watch fails more than ``MAX_FAILURES``
                times.
        """
        yield self.job(name)
        failures = 0
        while True:
            try:
                for body in self._watched(name):
                    failures = 0
                    yield body
                # If the watch had no events, the job may have been deleted. In this case, self.job raises
                # UserError.
                yield self.job(name)
            except Unreachable:
                failures += 1
                if failures > MAX_FAILURES:
                    raise
                time.sleep(RETRY_SECONDS)

    def _watched(self, name: str) -> Iterator[Body]:
        """Yield an RFTJob in its present state, and again after each change, until the server ends the watch
        request.
        """
        # Without a resourceVersion each watch begins with the current object, so no change is missed.
        stream = _kubernetes.watch.Watch().stream(
            self._objects.list_namespaced_custom_object,
            *(GROUP, VERSION, self.namespace, PLURAL),
            field_selector=f"metadata.name={name}",
            timeout_seconds=WATCH_SECONDS,
            _request_timeout=(TIMEOUT[0], WATCH_SECONDS + TIMEOUT[1]),
        )
        with self._explained(f"{KIND} {name!r}"), contextlib.closing(stream) as events:
            for event in events:
                if event["type"] == "DELETED":
                    raise UserError(f"{KIND} {name!r} was deleted", INVALID)
                yield event["object"]

    @contextlib.contextmanager
    def applying(self, *, dry_run: bool = False, force_conflicts: bool = False) -> Iterator["Applier"]:
        """Yield a function that applies objects to the cluster by server-side apply.

        - ``dry_run``: the API server checks the objects, and stores nothing
        - ``force_conflicts``: take over fields that another field manager has set
        """
        # The client caches the server's API in a file. The folder of this file is private, so that no other
        # user can write the file.
        with tempfile.TemporaryDirectory(prefix="rft-") as folder:
            client = _kubernetes.dynamic.DynamicClient(self._api, cache_file=f"{folder}/discovery.json")
            options = {"force_conflicts": force_conflicts, **({"dry_run": "All"} if dry_run else {})}

            def apply(body: Body) -> str:
                kind = body["kind"]
                with self._explained(
                    f"{kind} {body['metadata']['name']!r}", f"get, create and patch on {kind}"
                ):
                    return _apply(client, body, self.namespace, options)

            yield apply

    def change_spec(self, name: str, fields: Mapping[str, Any]) -> None:
        """Set some fields of the spec of an RFTJob, with a merge patch."""
        with self._explained(f"{KIND} {name!r}", f"patch on {PLURAL}.{GROUP}"):
            self._objects.patch_namespaced_custom_object(
                *(GROUP, VERSION, self.namespace, PLURAL, name),
                {"spec": dict(fields)},
                field_manager=FIELD_MANAGER,
                _content_type="application/merge-patch+json",
                _request_timeout=TIMEOUT,
            )

    def newest_pod(self, job: Body) -> Body:
        """Return the newest pod of an RFTJob's child Job.

        Raises:
            UserError: if the job has no pod.
        """
        name, child = job["metadata"]["name"], (job.get("status") or {}).get("jobName")
        phase = (job.get("status") or {}).get("phase") or "Pending"
        pods: list[Body] = []
        if child:
            with self._explained(f"the pods of {KIND} {name!r}"):
                answer = self._core.list_namespaced_pod(
                    self.namespace, label_selector=f"job-name={child}", _request_timeout=TIMEOUT
                )
            pods = [self._api.sanitize_for_serialization(pod) for pod in answer.items]
        if not pods:
            raise UserError(f"{KIND} {name!r} has no pod: its phase is {phase}", INVALID)
        return max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))

    def child_job(self, job: Body) -> Body | None:
        """Return the child Job of an RFTJob, or None if it does not exist.

        For example, Kubernetes deletes the child Job after its TTL.
        """
        child = (job.get("status") or {}).get("jobName")
        if not child:
            return None
        with self._explained(f"Job {child!r}", "get on jobs.batch"):
            try:
                found = self._batch.read_namespaced_job(child, self.namespace, _request_timeout=TIMEOUT)
            except ApiException as error:
                if error.status == 404:
                    return None
                raise
        return dict(self._api.sanitize_for_serialization(found))

    def pods(self, selector: str) -> list[Body]:
        """Return the pods of the namespace that match a label selector, such as ``job-name=NAME``."""
        with self._explained(f"the pods with the labels {selector}", "list on pods"):
            answer = self._core.list_namespaced_pod(
                self.namespace, label_selector=selector, _request_timeout=TIMEOUT
            )
        return [self._api.sanitize_for_serialization(pod) for pod in answer.items]

    def create_pod(self, body: Body) -> None:
        """Create a pod. If this raises Unreachable (no answer from the API server), the pod may exist."""
        with self._explained("a new pod", "create on pods"):
            self._core.create_namespaced_pod(self.namespace, body, _request_timeout=TIMEOUT)

    def pod(self, name: str) -> Body:
        """Return the pod with this name."""
        with self._explained(f"Pod {name!r}", "get on pods"):
            found = self._core.read_namespaced_pod(name, self.namespace, _request_timeout=TIMEOUT)
        return dict(self._api.sanitize_for_serialization(found))

    def delete_pod(self, name: str) -> None:
        """Delete a pod. If the pod does not exist, do nothing."""
        with self._explained(f"Pod {name!r}", "delete on pods"):
            try:
                self._core.delete_namespaced_pod(
                    name, self.namespace, grace_period_seconds=1, _request_timeout=TIMEOUT
                )
            except ApiException as error:
                if error.status != 404:
                    raise

    def run_in_pod(self, pod: str, container: str, command: Sequence[str]) -> PodProcess:
        """Start a command in a container. Return the connection to its standard input, output and error.

        Raises UserError if the user lacks the right to run commands in pods, and Unreachable for any other
        error.
        """
        what, rights = f"a command in pod {pod}", "get and create on pods/exec"
        try:
            socket = _kubernetes.stream.stream(
                self._core.connect_get_namespaced_pod_exec, pod, self.namespace, container=container,
                command=list(command), stdin=True, stdout=True, stderr=True, tty=False, binary=True,
                _preload_content=False,
            )  # fmt: skip
        except (ApiException, AttributeError) as error:
            # The client raises AttributeError while it converts an ApiException that has no body.
            refused = error if isinstance(error, ApiException) else error.__context__
            said = str(getattr(refused, "reason", error))
            status = handshake_status(said)
            if status in (401, 403):
                answer = ApiException(status=status, reason="Forbidden")
                raise UserError(self._explanation(what, answer, rights), INVALID) from error
            raise Unreachable(f"{what}: no connection: {one_line(said[:200])}", INVALID) from error
        return PodProcess(socket.sock)

    def log_lines(self, pod: str, container: str, *, follow: bool, tail: int | None) -> Iterator[str]:
        """Yield the lines of the log of a container.

        - ``follow``: also wait for new lines, until the container ends
        - ``tail``: yield only this number of last lines. None: all lines.
        """
        with self._explained(f"the log of {pod}, container {container}"):
            answer = self._core.read_namespaced_pod_log(
                pod,
                self.namespace,
                container=container,
                follow=follow,
                **({} if tail is None else {"tail_lines": tail}),
                _preload_content=False,
            )
            rest = b""
            for chunk in answer.stream(65536):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)
            if rest:
                yield rest.decode(errors="replace")

    @contextlib.contextmanager
    def _explained(self, what: str, rights: str = READING) -> Iterator[None]:
        """Convert errors of the Kubernetes client into a UserError with a message of one line.

        - ``what``: the object of the request, for the message
        - ``rights``: the rights that the request needs, for the message
        """
        try:
            yield
        except ApiException as error:
            passing = error.status == 429 or error.status >= 500
            raise (Unreachable if passing else UserError)(
                self._explanation(what, error, rights), INVALID
            ) from error
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(
                f"{self._api.configuration.host} does not answer ({type(error).__name__});"
                f" the kubeconfig is {tried()}; check the cluster, or name another context with --context",
                UNREADABLE,
            ) from error

    def _explanation(self, what: str, error: ApiException, rights: str) -> str:
        where = f"in namespace {self.namespace!r}"
        if error.status == 404 and "page not found" in str(error.body):
            return f"the cluster knows no {PLURAL}.{GROUP}: install the operator's chart first"
        if error.status == 404:
            return f"{what} does not exist {where}; see rft get, or name another namespace with -n"
        if error.status == 401:
            return f"{what}: the API server does not accept the credentials of {tried()}; log in again"
        if error.status == 403:
            return f"{what}: {error.reason} {where}; ask for the rights {rights}"
        if error.status in (400, 409, 422) and (said := _message(error)):
            fix = "; to take over these fields, add --force-conflicts" if error.status == 409 else ""
            return f"{what}: {said}{fix}"
        return f"{what}: the API server answers {error.status} {error.reason}"


def _apply(client: Any, body: Body, namespace: str, options: Body) -> str:
    """Apply an object to the cluster. Return ``created``, ``configured`` or ``unchanged``."""
    kind, version = body["kind"], body["apiVersion"]
    try:
        resource = client.resources.get(api_version=version, kind=kind)
    except ResourceNotFoundError as error:
        fix = ": install the operator's chart first" if kind == KIND else ""
        raise UserError(f"the cluster has no kind {kind} of {version}{fix}", INVALID) from error
    where: Body = {"name": body["metadata"]["name"], "_request_timeout": TIMEOUT}
    if resource.namespaced:
        where["namespace"] = body["metadata"].get("namespace") or namespace
    try:
        before = resource.get(**where).metadata.resourceVersion
    except NotFoundError:
        before = None
    after = resource.server_side_apply(body=body, field_manager=FIELD_MANAGER, **where, **options)
    if before is None:
        return "created"
    return "unchanged" if after.metadata.resourceVersion == before else "configured"


def _message(error: ApiException) -> str:
    """Return the reason that the API server gives in its answer, or "" if the answer has none."""
    try:
        return str(json.loads(error.body or "")["message"])
    except (ValueError, TypeError, KeyError):
        return ""


def _namespace_of_this_pod() -> str:
    """Return the namespace of the pod in which this program runs, or ``default`` if it is not known."""
    try:
        return _POD_NAMESPACE.read_text(encoding="utf-8").strip() or "default"
    except OSError:
        return "default"


def tried() -> str:
    """Return the path of the kubeconfig, as a text for messages.

    The text also says whether the path is from ``KUBECONFIG`` or is the default.
    """
    named = os.environ.get("KUBECONFIG")
    return f"{named} (KUBECONFIG)" if named else f"{Path('~/.kube/config').expanduser()} (the default)"


def _connect(context: str | None) -> tuple[Any, str]:
    """Return a client of the Kubernetes API, and the namespace of the kubeconfig's context.

    Raises UserError if there is no usable kubeconfig or no such context.
    """
    # urllib3's warnings about retries are hidden, because the error message alone says enough.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    try:
        contexts, active = _kubernetes.config.list_kube_config_contexts()
    except ConfigException as error:
        if context is None:
            with contextlib.suppress(ConfigException):
                _kubernetes.config.load_incluster_config()
                return _kubernetes.client.ApiClient(), _namespace_of_this_pod()
        raise UserError(
            f"no usable kubeconfig: tried {tried()}: {error}; set KUBECONFIG to the file of your cluster."
            " Commands for a run on this machine need no kubeconfig: rft run, rft curve DIR, rft report DIR",
            UNREADABLE,
        ) from error
    chosen = active if context is None else next((c for c in contexts if c["name"] == context), None)
    if chosen is None:
        names = ", ".join(str(c["name"]) for c in contexts)
        raise UserError(
            f"--context {context!r} is not in the kubeconfig {tried()}; it has {names}", UNREADABLE
        )
    try:
        api = _kubernetes.config.new_client_from_config(context=chosen["name"])
    except ConfigException as error:
        raise UserError(f"the context {chosen['name']!r} is not usable: {error}", UNREADABLE) from error
    return api, chosen["context"].get("namespace") or "default"
