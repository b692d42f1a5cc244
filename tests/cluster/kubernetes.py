"""The requests that the start of a test cluster sends to the Kubernetes API, by kubectl."""

import json
from pathlib import Path
from typing import Any

from tests.cluster.layout import Layout
from tests.cluster.shell import ClusterError, run
from tests.cluster.tools import kubectl

GPU_RESOURCE = "nvidia.com/gpu"
VOLUME_COUNT = 16
VOLUME_PREFIX = "rft-test-pv-"
VOLUME_SIZE = "10Gi"


class Kubernetes:
    """kubectl with one kubeconfig."""

    def __init__(self, layout: Layout, kubeconfig: Path) -> None:
        self.layout = layout
        self.command = (kubectl(layout.tools), f"--kubeconfig={kubeconfig}")

    def call(self, *words: str, stdin: str | None = None) -> str:
        """Run kubectl and return its stdout.

        Raises:
            ClusterError: kubectl failed.
        """
        return run(*self.command, *words, stdin=stdin)

    def is_ready(self) -> bool:
        """Return whether the API server answers, all nodes are ready and pods can be created.

        No pod can be created before a controller has created the namespace's default service account.
        """
        try:
            self.call("get", "--request-timeout=2s", "--raw=/readyz")
            self.call("--namespace=default", "get", "serviceaccount", "default")
            nodes = self.nodes()
        except ClusterError:
            return False
        return bool(nodes) and all(_is_node_ready(node) for node in nodes)

    def nodes(self) -> list[dict[str, Any]]:
        """Return all Node objects."""
        items: list[dict[str, Any]] = json.loads(self.call("get", "nodes", "--output=json"))["items"]
        return items

    def set_gpus(self, count: int) -> None:
        """Make every schedulable node advertise ``count`` GPUs. With 0, nodes advertise no GPUs.

        After a restart, a kubelet advertises no GPUs any more.
        """
        amount = {GPU_RESOURCE: str(count) if count else None}
        patch = {"status": {"capacity": amount, "allocatable": amount}}
        for node in filter(_takes_pods, self.nodes()):
            where = ("node", node["metadata"]["name"], "--subresource=status", "--type=merge")
            self.call("patch", *where, f"--patch={json.dumps(patch)}")

    def leave_claims_without_a_class(self) -> None:
        """Unset the default storage class: claims without a class then use volumes of ``make_volumes``."""
        nobody = {"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "false"}}}
        found = json.loads(self.call("get", "storageclasses", "--output=json"))["items"]
        for name in (one["metadata"]["name"] for one in found):
            self.call("patch", "storageclass", name, f"--patch={json.dumps(nobody)}")

    def make_volumes(self) -> None:
        """Create PersistentVolumes for claims without a storage class.

        Every UID may write to the folders of the volumes, because the kubelet does not apply ``fsGroup`` to
        host paths.
        """
        volumes = [self._volume(number) for number in range(VOLUME_COUNT)]
        self.call("apply", "--filename=-", stdin=_list(volumes))

    def renew_volumes(self) -> list[str]:
        """Empty the volumes whose claim was deleted, and make them available again. Return their names."""
        found = json.loads(self.call("get", "persistentvolumes", "--output=json"))["items"]
        released = [
            volume["metadata"]["name"]
            for volume in found
            if volume["status"].get("phase") == "Released"
            and volume["metadata"]["name"].startswith(VOLUME_PREFIX)
        ]
        for name in released:
            self.call("delete", "persistentvolume", name)
        if released:
            volumes = [self._volume(int(name.removeprefix(VOLUME_PREFIX))) for name in released]
            self.call("apply", "--filename=-", stdin=_list(volumes))
        return released

    def _volume(self, number: int) -> dict[str, Any]:
        """Return the PersistentVolume with this number. Create its folder, or empty it."""
        folder = self.layout.volumes / str(number)
        if folder.exists():
            run("rm", "--recursive", folder)
        folder.mkdir(parents=True)
        folder.chmod(0o777)
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{VOLUME_PREFIX}{number}"},
            "spec": {
                "capacity": {"storage": VOLUME_SIZE},
                "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(folder)},
            },
        }


def _is_node_ready(node: dict[str, Any]) -> bool:
    conditions = node["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _takes_pods(node: dict[str, Any]) -> bool:
    return not any(taint["effect"] != "PreferNoSchedule" for taint in node["spec"].get("taints") or [])


def _list(items: list[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
