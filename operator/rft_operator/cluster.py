"""Sends all requests to the API server, except kopf's lists and watches.

Requests and responses are plain JSON. Requests use the connection of the ``kubernetes`` client, with its
credentials, TLS and token refresh. They do not use the client's generated models: these would drop unknown
fields, and refuse objects that they do not expect. Calls block, so callers run them in a bounded pool of
threads.

ClusterError           the API server refused the request, or one of the following:
├── NotFound           404
├── Conflict           409: another client changed the object in between, or the name is taken
├── NotLeading         the request was not sent: this process does not hold the Lease
└── Unavailable        no answer, 429 or 5xx: a retry may succeed
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
from kubernetes import client, config
from kubernetes.client import rest
from kubernetes.config.config_exception import ConfigException
from yaml import YAMLError

from rft_api import GROUP, PLURAL, VERSION
from rft_operator import metrics
from rft_operator.kueue import PLACES
from rft_operator.objects.names import LABEL_JOB_UID, Owner
from rft_operator.observe import RawState
from rft_operator.stream import BrokenOff, items
from rft_run.cluster_text import ClusterText, cluster_text

Json = dict[str, Any]

_MERGE_PATCH = "application/merge-patch+json"
_STRATEGIC_PATCH = "application/strategic-merge-patch+json"
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
MAX_LOG_BYTES = 64 * 1024
CHUNK_BYTES = 64 * 1024
_NO_DRY_RUN = "does not support dry run"
"""Part of the error message with which the API server refuses a dry run, because an admission webhook may
have side effects."""
_RESOURCES = {
    "Job": "apis/batch/v1/namespaces/{}/jobs",
    "ConfigMap": "api/v1/namespaces/{}/configmaps",
    "PersistentVolumeClaim": "api/v1/namespaces/{}/persistentvolumeclaims",
    "Pod": "api/v1/namespaces/{}/pods",
    "Event": "api/v1/namespaces/{}/events",
    "ResourceQuota": "api/v1/namespaces/{}/resourcequotas",
    "LimitRange": "api/v1/namespaces/{}/limitranges",
    "Secret": "api/v1/namespaces/{}/secrets",
    "Lease": "apis/coordination.k8s.io/v1/namespaces/{}/leases",
    "ValidatingWebhookConfiguration": "apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
    "RFTJob": f"apis/{GROUP}/{VERSION}/namespaces/{{}}/{PLURAL}",
}


class NoCluster(Exception):
    """There is no usable kubeconfig or service account. The message says which of them was tried."""


class ClusterError(Exception):
    """The API server refused a request or did not answer it, or the request was not sent.

    ``status`` is the HTTP status of the answer, or 0 if there is no answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class NotFound(ClusterError):
    """The API server has no object of this name."""


class Conflict(ClusterError):
    """Another client changed the object before this write, or an object of this name exists already."""


class NotLeading(ClusterError):
    """The write was not sent, because this process does not hold the Lease."""


class Unavailable(ClusterError):
    """The API server did not answer, or its answer means that a retry may succeed."""


class Cluster:
    """A client of the API server, with a method for each request of the operator and the webhook. Only kopf's
    lists and watches do not use it. The RBAC rules of the chart allow these requests and no others.
    """

    def __init__(self, configuration: Any, threads: int = 8, seconds: float = READ_SECONDS) -> None:
        """Make a client from a loaded ``kubernetes.client.Configuration``. No request is sent yet.

        - ``threads``: how many threads send requests at once. The client keeps this many connections open.
        - ``seconds``: the read timeout of a request in seconds. The connect timeout is never longer.
        """
        configuration.connection_pool_maxsize = threads
        self._seconds = seconds
        self.fence: Callable[[], float] = lambda: math.inf
        """A function that returns for how many more seconds this process may write, because it holds the
        Lease. Without leader election, this time has no limit."""
        self._configuration = configuration
        self._pool: Any = rest.RESTClientObject(configuration).pool_manager

    def login(self) -> Json:
        """Return the cluster's address and credentials as the arguments of kopf's ``ConnectionInfo``."""
        c = self._configuration
        # The header is "Bearer …" or "bearer …", depending on where the token comes from.
        token = self._authorization().get("Authorization", "").partition(" ")[2]
        return {
            "server": c.host,
            "ca_path": c.ssl_ca_cert,
            "insecure": not c.verify_ssl,
            "certificate_path": c.cert_file,
            "private_key_path": c.key_file,
            "token": token or None,
        }

    # Reads.

    def job(self, namespace: str, name: str) -> Json | None:
        """Return an RFTJob, or ``None`` if it does not exist."""
        return self._find("RFTJob", namespace, name)

    def state(self, owner: Owner, baseline: str | None = None, pods_version: str = "0") -> RawState:
        """Return the child objects of an RFTJob, and its baseline: the earlier RFTJob with which it is
        compared. The claim for cached models (``owner.cache``) is not read.

        - ``baseline``: the name of the baseline. None: no baseline is read.
        - ``pods_version``: a resource version that came from a watch. The pods are at least as new as this
          version. With it the API server answers from its cache, and need not read all pods of the namespace
          from etcd.

        An object that has the name of a child is returned even if it belongs to another owner.
        """
        job, pods = self.child_and_pods(owner, pods_version)
        return RawState(
            job=job,
            config=self._find("ConfigMap", owner.namespace, owner.child),
            ca=self._find("ConfigMap", owner.namespace, owner.ca),
            claim=self._find("PersistentVolumeClaim", owner.namespace, owner.child),
            pods=pods,
            baseline=self.job(owner.namespace, baseline) if baseline is not None else None,
        )

    def child_and_pods(self, owner: Owner, pods_version: str) -> tuple[Json | None, tuple[Json, ...]]:
        """Return the Job and the pods of an RFTJob. The pods are at least as new as ``pods_version``."""
        selector = f"{LABEL_JOB_UID}={owner.uid}"
        job = self._find("Job", owner.namespace, owner.child)
        return job, tuple(self._list("Pod", owner.namespace, selector, pods_version))

    def pod(self, namespace: str, name: str) -> Json | None:
        """Return the pod with this name, or ``None`` if it does not exist."""
        return self._find("Pod", namespace, name)

    def log(self, namespace: str, name: str, container: str, lines: int) -> str:
        """Return the last ``lines`` lines of a container's log, at most ``MAX_LOG_BYTES`` bytes."""
        query = {"container": container, "tailLines": str(lines), "limitBytes": str(MAX_LOG_BYTES)}
        answer: bytes = self._request("GET", f"{self._path('Pod', namespace, name)}/log", query).data
        return answer.decode(errors="replace")

    def child(self, namespace: str, name: str) -> Json | None:
        """Return the Job with this name, or ``None`` if it does not exist."""
        return self._find("Job", namespace, name)

    def claim(self, namespace: str, name: str) -> Json | None:
        """Return the PersistentVolumeClaim with this name, or ``None`` if there is none."""
        return self._find("PersistentVolumeClaim", namespace, name)

    def secret(self, namespace: str, name: str) -> Json | None:
        """Return the Secret with this name, or ``None`` if it does not exist. The chart grants the right to
        read only one Secret: the one with the certificates of the ingest, or of the webhook.
        """
        return self._find("Secret", namespace, name)

    def lease(self, namespace: str, name: str) -> Json:
        """Return the Lease with this name. The chart allows the operator to read only one Lease."""
        return self._call("GET", self._path("Lease", namespace, name))

    def webhook_configuration(self, name: str) -> Json:
        """Return a ValidatingWebhookConfiguration. The chart allows the webhook to read only its own."""
        return self._call("GET", self._path("ValidatingWebhookConfiguration", "", name))

    def nodes(self) -> Iterator[Json]:
        """Yield the nodes, one at a time, from the API server's cache. The chart grants the right to list
        nodes only if its value ``nodes.read`` is true.

        A list of all nodes of a large cluster would take hundreds of megabytes of memory.
        """
        return self._stream("api/v1/nodes")

    def obstacles(self, namespace: str) -> Iterator[Json]:
        """Yield the Events of a namespace that may say why a pod does not start, one at a time.

        These are the Warnings, and all Events about PersistentVolumeClaims.
        """
        path = self._path("Event", namespace)
        yield from self._stream(path, {"fieldSelector": "type=Warning"})
        yield from self._stream(
            path, {"fieldSelector": "involvedObject.kind=PersistentVolumeClaim,type=Normal"}
        )

    def quotas(self, namespace: str) -> Iterator[Json]:
        """Yield the ResourceQuotas of a namespace, one at a time."""
        return self._stream(self._path("ResourceQuota", namespace))

    def limit_ranges(self, namespace: str) -> Iterator[Json]:
        """Yield the LimitRanges of a namespace, one at a time."""
        return self._stream(self._path("LimitRange", namespace))

    def workloads(self, namespace: str) -> Iterator[Json]:
        """Yield Kueue's Workloads in a namespace, one at a time. The chart must grant the right to list them.

        Raises NotFound if Kueue is not installed: either at the call, or when the first item is read.
        """
        path = f"{self._api('kueue.x-k8s.io')}/namespaces/{quote(namespace, safe='')}/workloads"
        return self._stream(path)

    def pending_workloads(self, namespace: str, queue: str) -> list[Json]:
        """Return the first ``PLACES[-1]`` Workloads in a LocalQueue, with their positions, from Kueue's
        visibility API.
        """
        api, where = self._api("visibility.kueue.x-k8s.io"), f"namespaces/{quote(namespace, safe='')}"
        path = f"{api}/{where}/localqueues/{quote(queue, safe='')}/pendingworkloads"
        return list(self._call("GET", path, {"limit": str(PLACES[-1])}).get("items") or [])

    def serves_jobs(self) -> bool:
        """Return whether the API server knows the resource RFTJob. This is true once the CRD is installed."""
        try:
            answer = self._call("GET", f"apis/{GROUP}/{VERSION}")
        except NotFound:
            return False
        return any(each.get("name") == PLURAL for each in answer.get("resources") or [])

    def server_version(self) -> Json:
        """Return the version of the API server: a JSON object with texts, such as ``"major": "1"`` and
        ``"minor": "29+"``.
        """
        return self._call("GET", "version")

    def has_group(self, group: str) -> bool:
        """Return whether the API server has the API group ``group``, for example one of OpenShift."""
        try:
            self._call("GET", f"apis/{group}")
        except NotFound:
            return False
        return True

    # Writes.

    def create(self, manifest: Json) -> Json:
        """Create an object. Raises Conflict if another object already has its name."""
        return self._call(
            "POST", self._path(manifest["kind"], manifest["metadata"]["namespace"]), body=manifest
        )

    def takes(self, manifest: Json) -> bool:
        """Check by a dry run that the API server would create an object. Nothing is stored.

        Return true if the API server would create the object. Return false if no dry run is possible, because
        an admission webhook may have side effects. Otherwise raise the error that ``create`` would raise.
        """
        path = self._path(manifest["kind"], manifest["metadata"]["namespace"])
        try:
            self._call("POST", path, {"dryRun": "All"}, body=manifest)
        except ClusterError as error:
            if error.status == 400 and _NO_DRY_RUN in str(error):
                return False
            raise
        return True

    def merge_data(self, kind: str, namespace: str, name: str, version: str, data: Json) -> Json:
        """Merge ``data`` into a ConfigMap or Secret. Raises Conflict if its resource version is not
        ``version``.
        """
        body = {"metadata": {"resourceVersion": version}, "data": data}
        return self._call("PATCH", self._path(kind, namespace, name), body=body)

    def replace_lease(self, manifest: Json) -> Json:
        """Replace a Lease. Raises Conflict if the Lease has changed since ``manifest`` was read."""
        metadata = manifest["metadata"]
        return self._call("PUT", self._path("Lease", metadata["namespace"], metadata["name"]), body=manifest)

    def label_pod(self, namespace: str, name: str, labels: Mapping[str, str | None]) -> None:
        """Merge ``labels`` into the labels of a pod. ``None`` removes a label."""
        self._call("PATCH", self._path("Pod", namespace, name), body={"metadata": {"labels": dict(labels)}})

    def patch_webhook_configuration(self, name: str, patch: Json) -> Json:
        """Merge ``patch`` into a ValidatingWebhookConfiguration. A webhook in ``patch`` is merged into the
        webhook with the same name.
        """
        path = self._path("ValidatingWebhookConfiguration", "", name)
        return self._call("PATCH", path, body=patch, patch_type=_STRATEGIC_PATCH)

    def patch_status(self, document: Mapping[str, Any], patch: Json) -> Json:
        """Merge ``patch`` into the status of an RFTJob. Raises Conflict if the RFTJob has changed since
        ``document`` was read.
        """
        metadata = document["metadata"]
        path = self._path("RFTJob", metadata["namespace"], metadata["name"])
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": patch}
        return self._call("PATCH", f"{path}/status", body=body)

    def patch_child(self, namespace: str, name: str, uid: str, patch: Json) -> Json:
        """Merge ``patch`` into a Job. Raises Conflict if the Job with this name does not have this UID, and
        NotFound if there is none.
        """
        body = {**patch, "metadata": {**patch.get("metadata", {}), "uid": uid}}
        return self._call("PATCH", self._path("Job", namespace, name), body=body)

    def delete_child(self, namespace: str, name: str, uid: str) -> None:
        """Delete a Job in the foreground: Kubernetes deletes its pods first, and the Job stays until they are
        gone. Do not wait for this.

        Raises Conflict if the Job with this name does not have this UID, and NotFound if there is none.
        """
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Foreground",
            "preconditions": {"uid": uid},
        }
        self._call("DELETE", self._path("Job", namespace, name), body=body)

    def delete_config(self, namespace: str, name: str, uid: str) -> None:
        """Delete a ConfigMap. Raises Conflict if the ConfigMap with this name does not have this UID, and
        NotFound if there is none.
        """
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        self._call("DELETE", self._path("ConfigMap", namespace, name), body=body)

    def review_token(self, token: str, audience: str) -> Json:
        """Ask the API server whether a token is valid for the audience ``audience``. Return the status of the
        TokenReview.
        """
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }
        answer = self._call("POST", "apis/authentication.k8s.io/v1/tokenreviews", body=review)
        return dict(answer.get("status") or {})

    # Requests.

    def _path(self, kind: str, namespace: str, name: str = "") -> str:
        path = _RESOURCES[kind].format(quote(namespace, safe=""))
        return f"{path}/{quote(name, safe='')}" if name else path

    def _api(self, group: str) -> str:
        """Return the URL path of the preferred version of an API group. Raises NotFound if the group does
        not exist.
        """
        return f"apis/{self._call('GET', f'apis/{group}')['preferredVersion']['groupVersion']}"

    def _find(self, kind: str, namespace: str, name: str) -> Json | None:
        try:
            return self._call("GET", self._path(kind, namespace, name))
        except NotFound:
            return None

    def _list(self, kind: str, namespace: str, selector: str, version: str) -> list[Json]:
        path, query = self._path(kind, namespace), {"labelSelector": selector}
        try:
            answer = self._call("GET", path, query | {"resourceVersion": version})
        except Unavailable:
            # The API server waits three seconds for its cache to reach the requested version, and then
            # refuses the request. To a request without a version, it returns the newest list.
            answer = self._call("GET", path, query)
        return list(answer.get("items") or [])

    def _stream(self, path: str, query: Mapping[str, str] | None = None) -> Iterator[Json]:
        """Yield the items of a list, which the API server reads from its cache.

        If the API server refuses the request, the error is raised when the first item is read. Raises
        Unavailable if the response ends before the list is complete.
        """
        answer = self._request("GET", path, {"resourceVersion": "0", **(query or {})}, whole=False)
        chunks = answer.stream(CHUNK_BYTES)
        try:
            yield from items(chunks)
            for _ in chunks:
                pass  # a connection can only be reused after its response was read to the end
        except (urllib3.exceptions.HTTPError, BrokenOff) as error:
            raise Unavailable(0, f"GET {path}: {type(error).__name__}") from error
        finally:
            answer.close()
            answer.release_conn()

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        patch_type: str = _MERGE_PATCH,
    ) -> Json:
        return dict(json.loads(self._request(method, path, query, body, patch_type).data or b"{}"))

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        patch_type: str = _MERGE_PATCH,
        *,
        whole: bool = True,
    ) -> Any:
        """Return the response to a request.

        If ``whole`` is false, the response's body is not read yet. The caller must then read the body and
        release the connection. Raises ClusterError, or the subclass of it that fits the answer.
        """
        url = f"{self._configuration.host}/{path}"
        if query:
            url = f"{url}?{urlencode(query)}"
        # The answer is JSON, except that a log is plain text.
        headers = {"Accept": "application/json, */*", "User-Agent": "rft-operator", **self._authorization()}
        data = None
        if body is not None:
            headers["Content-Type"] = patch_type if method == "PATCH" else "application/json"
            data = json.dumps(body, allow_nan=False).encode()
        timeout = self._timeout(method, path)
        try:
            answer = self._pool.request(
                method, url, body=data, headers=headers, timeout=timeout, retries=False, preload_content=whole
            )
            metrics.API_REQUESTS.labels(method, answer.status).inc()
            if 200 <= answer.status < 300:
                return answer
            said = _said(answer.data)
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(0, f"{method} {path}: {type(error).__name__}") from error
        raise _error(answer.status, f"{method} {path}: {said}")

    def _timeout(self, method: str, path: str) -> urllib3.Timeout:
        """Return the timeouts of a request.

        Each method but GET counts as a write. A write must not begin after this process has lost the Lease.
        So the connect timeout of a write is at most the number of seconds for which this process may still
        write. Raises NotLeading for a write if this process may not write any more.
        """
        left = self.fence() if method != "GET" else math.inf
        if left <= 0:
            raise NotLeading(0, f"{method} {path}: not sent, because this process lost the Lease")
        return urllib3.Timeout(connect=min(CONNECT_SECONDS, self._seconds, left), read=self._seconds)

    def _authorization(self) -> dict[str, str]:
        # Called for each request, because auth_settings() also renews an expired token.
        bearer = self._configuration.auth_settings().get("BearerToken")
        return {"Authorization": bearer["value"]} if bearer else {}


def connect(
    kubeconfig: str | None, context: str | None = None, threads: int = 8, seconds: float = READ_SECONDS
) -> Cluster:
    """Return a client for the cluster of ``kubeconfig``, a path. If it is None, the client uses the service
    account of this process's pod.

    - ``context``: the context of the kubeconfig. None: its current context.
    - ``threads`` and ``seconds``: see ``Cluster``.

    Raises:
        NoCluster: if the kubeconfig cannot be used, or this process is not in a pod.
    """
    configuration = client.Configuration()
    loader: Any = config
    try:
        if kubeconfig is None:
            loader.load_incluster_config(client_configuration=configuration)
        else:
            loader.load_kube_config(kubeconfig, context=context, client_configuration=configuration)
    except (ConfigException, OSError, YAMLError) as error:
        where = f"the kubeconfig {kubeconfig}" if kubeconfig else "this process is in no pod"
        hint = "" if kubeconfig else "; outside of a cluster use --kubeconfig"
        raise NoCluster(f"{where}: {error}{hint}") from error
    return Cluster(configuration, threads, seconds)


def _error(status: int, message: str) -> ClusterError:
    if status == 404:
        return NotFound(status, message)
    if status == 409:
        return Conflict(status, message)
    if status == 429 or status >= 500:
        return Unavailable(status, message)
    return ClusterError(status, message)


def _said(data: bytes) -> ClusterText:
    """Return the message in the body of a refusal. An admission webhook or a policy may have written it."""
    try:
        return cluster_text(str(json.loads(data).get("message", "")), 500)
    except (ValueError, AttributeError):
        return cluster_text(data.decode(errors="replace"), 200)
