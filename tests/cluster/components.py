"""The command lines of the node's components."""

from dataclasses import dataclass

from tests.cluster.build import etcd_program
from tests.cluster.spec import API_PORT, NODE_NAME, NodeSpec

ISSUER = "https://kubernetes.default.svc"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
FRONT_PROXY = "front-proxy-client"
ETCD = "http://127.0.0.1:2379"


@dataclass(frozen=True)
class Component:
    """A program that the node keeps running. Its log file has the name ``name``."""

    name: str
    command: list[str]


def components(spec: NodeSpec) -> list[Component]:
    """Return all components. Their order has no effect, because each component waits for the others."""
    return [
        _etcd(spec),
        _containerd(spec),
        _api_server(spec),
        _controller_manager(spec),
        _scheduler(spec),
        _kubelet(spec),
        _proxy(spec),
    ]


def _feature_gates(spec: NodeSpec) -> list[str]:
    """Return the option that enables the TTL of Jobs. Kubernetes 1.21 and newer need no option."""
    return ["--feature-gates=TTLAfterFinished=true"] if spec.minor_version < 21 else []


def _etcd(spec: NodeSpec) -> Component:
    """Return the component etcd.

    Its data is in ``/run``, which is a tmpfs. So etcd never waits for a disk, and leaves no files to remove.
    """
    program = str(etcd_program(spec.binaries))
    urls = [f"--listen-client-urls={ETCD}", f"--advertise-client-urls={ETCD}"]
    return Component("etcd", [program, "--data-dir=/run/etcd", "--log-outputs=stderr", *urls])


def _containerd(spec: NodeSpec) -> Component:
    return Component("containerd", ["containerd", f"--config={spec.layout.config}/containerd.toml"])


def _api_server(spec: NodeSpec) -> Component:
    config, logs = spec.layout.config, spec.layout.logs
    return Component(
        "kube-apiserver",
        [
            f"{spec.binaries}/kube-apiserver",
            f"--etcd-servers={ETCD}",
            f"--secure-port={API_PORT}",
            f"--advertise-address={spec.network.node_address}",
            f"--service-cluster-ip-range={spec.network.services}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--client-ca-file={config}/ca.crt",
            f"--tls-cert-file={config}/server.crt",
            f"--tls-private-key-file={config}/server.key",
            f"--kubelet-certificate-authority={config}/ca.crt",
            f"--kubelet-client-certificate={config}/admin.crt",
            f"--kubelet-client-key={config}/admin.key",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-issuer={ISSUER}",
            f"--api-audiences={ISSUER}",
            f"--service-account-key-file={config}/service-account.key",
            f"--service-account-signing-key-file={config}/service-account.key",
            # For aggregated API servers, such as Kueue's visibility API.
            f"--proxy-client-cert-file={config}/{FRONT_PROXY}.crt",
            f"--proxy-client-key-file={config}/{FRONT_PROXY}.key",
            f"--requestheader-client-ca-file={config}/ca.crt",
            f"--requestheader-allowed-names={FRONT_PROXY}",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--audit-policy-file={config}/audit-policy.yaml",
            f"--audit-log-path={logs}/audit.log",
            *_feature_gates(spec),
        ],
    )


def _controller_manager(spec: NodeSpec) -> Component:
    config = spec.layout.config
    return Component(
        "kube-controller-manager",
        [
            f"{spec.binaries}/kube-controller-manager",
            f"--kubeconfig={config}/kube-controller-manager.kubeconfig",
            f"--service-account-private-key-file={config}/service-account.key",
            f"--root-ca-file={config}/ca.crt",
            f"--cluster-signing-cert-file={config}/ca.crt",
            f"--cluster-signing-key-file={config}/ca.key",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            *_feature_gates(spec),
        ],
    )


def _scheduler(spec: NodeSpec) -> Component:
    return Component(
        "kube-scheduler",
        [
            f"{spec.binaries}/kube-scheduler",
            f"--kubeconfig={spec.layout.config}/kube-scheduler.kubeconfig",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        ],
    )


def _kubelet(spec: NodeSpec) -> Component:
    remote = ["--container-runtime=remote"] if spec.minor_version < 24 else []  # removed in 1.27
    return Component(
        "kubelet",
        [
            f"{spec.binaries}/kubelet",
            f"--config={spec.layout.config}/kubelet.json",
            f"--kubeconfig={spec.layout.config}/kubelet.kubeconfig",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={spec.network.node_address}",
            f"--container-runtime-endpoint=unix://{CONTAINERD_SOCKET}",
            *remote,
        ],
    )


def _proxy(spec: NodeSpec) -> Component:
    """Return kube-proxy. Its options prevent it from changing the host's settings of connection tracking."""
    return Component(
        "kube-proxy",
        [
            f"{spec.binaries}/kube-proxy",
            f"--kubeconfig={spec.layout.config}/kube-proxy.kubeconfig",
            f"--hostname-override={NODE_NAME}",
            f"--cluster-cidr={spec.network.pods}",
            "--proxy-mode=iptables",
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=0s",
            "--oom-score-adj=0",
        ],
    )
