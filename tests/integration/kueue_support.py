"""Creates Kueue's queues, and checks what the status of waiting jobs says."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

from rft_operator.cluster import NotFound
from rft_operator.objects.names import QUEUE_LABELS
from rft_operator.workloads import JOB_UID
from tests.integration.kueue_release_support import KUEUE
from tests.integration.operator_support import Api, Object, Run
from tests.tables import Table
from tests.waiting import wait_until

WORKLOADS = "apis/kueue.x-k8s.io/v1beta2/namespaces/{}/workloads"
LOCAL_QUEUES = f"{KUEUE}/namespaces/{{}}/localqueues"
QUEUE_NAME, PRIORITY = QUEUE_LABELS
PRODUCT_LABEL = "nvidia.com/gpu.product"
MESSAGE_WITHIN = 10.0
"""The status must say within this many seconds why a job waits."""


@dataclass
class WaitMessages:
    """Collects the status message of each test case, and the seconds until it appeared, in a table."""

    table: Table

    def until(
        self, case: str, run: Run, part: str, *, within: float = MESSAGE_WITHIN, since: float = 0.0
    ) -> Object:
        """Wait until the status message contains ``part``. Return the status.

        Also add a row to the table: ``case``, the message, and the seconds until the message appeared. The
        seconds count from ``since``, a value of ``time.monotonic()``. If ``since`` is 0, they count from the
        call. Fail if the message takes ``within`` seconds or longer.
        """
        began = since or time.monotonic()
        status: Object = {}

        def has_part() -> bool:
            nonlocal status
            status = run.status
            return part in status.get("message", "")

        try:
            wait_until(f"{case}: {part}", has_part, 60)
        except AssertionError as error:
            raise AssertionError(f"{error}; the status message is: {status.get('message')}") from None
        took = time.monotonic() - began
        self.table.rows.append((case, status["message"], f"{took:.1f}"))
        assert took < within, f"{case}: the message appeared after {took:.1f} s"
        ready = next(c for c in status["conditions"] if c["type"] == "Ready")
        assert ready["message"] == status["message"]
        return status


class Kueue:
    """Creates Kueue's objects as an administrator would."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self._made: list[tuple[str, str]] = []

    def make(self, path: str, body: Object) -> None:
        """Create an object. It is deleted after the test."""
        self.api.create(path, {"apiVersion": "kueue.x-k8s.io/v1beta1", **body})
        self._made.append((path, body["metadata"]["name"]))

    def remove(self) -> None:
        """Delete the created objects and wait. Kueue keeps an object as long as another object uses it."""
        made, self._made = self._made, []
        for path, name in made:
            with suppress(NotFound):
                self.api.delete(path, name)
        for path, name in made:
            wait_until(f"{name} is gone", partial(gone, self.api, path, name), 60)

    def flavor(self, name: str, product: str | None = None) -> None:
        """Create a ResourceFlavor.

        With ``product`` it selects nodes with this kind of GPU, and tolerates the taint rft.dev/dedicated.
        """
        labels = {"nodeLabels": {PRODUCT_LABEL: product}} if product else {}
        taint = {"key": "rft.dev/dedicated", "operator": "Exists", "effect": "NoSchedule"}
        spec = {**labels, "tolerations": [taint]} if product else {}
        self.make(
            f"{KUEUE}/resourceflavors", {"kind": "ResourceFlavor", "metadata": {"name": name}, "spec": spec}
        )

    def cluster_queue(
        self, name: str, flavors: str | Sequence[str], cpu: str, *, gpus: str | None = None, **spec: object
    ) -> None:
        """Create a ClusterQueue. Each flavor has ``cpu`` CPUs, ``gpus`` GPUs, and more memory than needed."""
        quotas = {"cpu": cpu, "memory": "10Ti", **({"nvidia.com/gpu": gpus} if gpus is not None else {})}
        resources = [{"name": name, "nominalQuota": amount} for name, amount in quotas.items()]
        named = [flavors] if isinstance(flavors, str) else flavors
        group = {
            "coveredResources": list(quotas),
            "flavors": [{"name": flavor, "resources": resources} for flavor in named],
        }
        self.make(
            f"{KUEUE}/clusterqueues",
            {
                "kind": "ClusterQueue",
                "metadata": {"name": name},
                "spec": {"namespaceSelector": {}, "resourceGroups": [group], **spec},
            },
        )

    def local_queue(self, name: str, cluster_queue: str) -> None:
        """Create a LocalQueue in the tests' namespace."""
        self.make(
            LOCAL_QUEUES,
            {"kind": "LocalQueue", "metadata": {"name": name}, "spec": {"clusterQueue": cluster_queue}},
        )

    def workload(self, run: Run) -> Object:
        """Wait for the Workload of a run's child Job and return it."""
        uid = run.child()["metadata"]["uid"]
        path = f"{WORKLOADS}?labelSelector={quote(f'{JOB_UID}={uid}', safe='')}"
        return wait_until(
            "the Workload", lambda: next(iter(self.api.call("GET", path).get("items") or []), None)
        )


def gone(api: Api, path: str, name: str) -> bool:
    """Return whether an object does not exist."""
    return api.find(path, name) is None
