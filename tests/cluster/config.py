"""Writes the configuration files of the node's components. Every start writes the files again."""

import json
from pathlib import Path
from typing import Any

from tests.cluster.components import CONTAINERD_SOCKET, FRONT_PROXY
from tests.cluster.pause import IMAGE
from tests.cluster.pki import Authority, service_account_key
from tests.cluster.spec import NODE_NAME, NodeSpec

CNI_PLUGINS = "/usr/lib/cni"

_CONTAINERD = """\
version = 2
root = "{root}/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
# Without CAP_SYS_RESOURCE no process may lower an OOM score, and runc fails if it tries.
restrict_oom_score_adj = {restrict_oom_score_adj}

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni_plugins}"
conf_dir = "{config}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        # The bodies of these requests have the start and end times of each container, for tests/chaos.
        {"level": "RequestResponse", "resources": [{"group": "", "resources": ["pods/status"]}]},
        {"level": "Metadata"},
    ],
}


def write_configuration(spec: NodeSpec) -> None:
    """Write all files that the command lines in ``components`` name, and the administrator's kubeconfig.

    Raises:
        ClusterError: ``openssl`` is missing or failed.
    """
    folder = spec.layout.config
    _write_credentials(spec, folder)
    (folder / "containerd.toml").write_text(_containerd(spec))
    (folder / "kubelet.json").write_text(json.dumps(_kubelet(spec), indent=2))
    (folder / "audit-policy.yaml").write_text(json.dumps(AUDIT_POLICY, indent=2))
    (folder / "cni").mkdir()
    (folder / "cni/rft-test.conflist").write_text(json.dumps(_cni(spec), indent=2))


def _write_credentials(spec: NodeSpec, folder: Path) -> None:
    authority = Authority(folder)
    addresses = [spec.network.node_address, spec.network.first_service_address, "127.0.0.1"]
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", NODE_NAME]
    hosts = (*(f"IP:{address}" for address in addresses), *(f"DNS:{name}" for name in names))
    authority.issue("server", NODE_NAME, hosts=hosts)
    admin = authority.issue("admin", "rft-test-admin", "system:masters")
    authority.kubeconfig(spec.server, admin, spec.layout.kubeconfig)
    users = {
        "kube-controller-manager": ("system:kube-controller-manager", None),
        "kube-scheduler": ("system:kube-scheduler", None),
        "kube-proxy": ("system:kube-proxy", None),
        "kubelet": (f"system:node:{NODE_NAME}", "system:nodes"),
    }
    for name, (user, group) in users.items():
        pair = authority.issue(name, user, group)
        authority.kubeconfig(spec.server, pair, folder / f"{name}.kubeconfig")
    authority.issue(FRONT_PROXY, FRONT_PROXY)
    service_account_key(folder)


def _containerd(spec: NodeSpec) -> str:
    return _CONTAINERD.format(
        root=spec.layout.data,
        config=spec.layout.config,
        socket=CONTAINERD_SOCKET,
        pause=IMAGE,
        snapshotter=spec.snapshotter,
        cni_plugins=CNI_PLUGINS,
        restrict_oom_score_adj=str(spec.lacks_sys_resource).lower(),
    )


def _kubelet(spec: NodeSpec) -> dict[str, Any]:
    config = spec.layout.config
    # Needed from 1.35 on, where the kubelet refuses cgroup v1 by default. The field exists from 1.31 on.
    either_cgroup = {"failCgroupV1": False} if spec.minor_version >= 31 else {}
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{config}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{config}/server.crt",
        "tlsPrivateKeyFile": f"{config}/server.key",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{spec.name}",
        "failSwapOn": False,
        "resolvConf": "/dev/null",
        "oomScoreAdj": 0,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        # A shared disk may be nearly full, and an image that is garbage-collected cannot be pulled again.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1Gi"},
        "imageGCHighThresholdPercent": 100,
        **either_cgroup,
    }


def _cni(spec: NodeSpec) -> dict[str, Any]:
    """Return the CNI configuration. Its point-to-point links need no bridge and no br_netfilter."""
    address_pool = {"type": "host-local", "ranges": [[{"subnet": spec.network.pods}]]}
    plugin = {
        "type": "ptp",
        "ipam": {**address_pool, "routes": [{"dst": "0.0.0.0/0"}]},
    }
    return {"cniVersion": "0.4.0", "name": spec.name, "plugins": [plugin]}
