"""The test cluster: a real Kubernetes cluster for the integration and end-to-end tests.

``python3 -m tests.cluster up`` (from the repository root) starts one or finds the one that runs, and
prints the path of its kubeconfig. It uses nothing beyond the standard library, so that it runs
before any virtual environment exists.

Four providers, in order of preference (``provider.py``):

1. the cluster of the kubeconfig named by ``RFT_TEST_KUBECONFIG``;
2. ``kind``, where a Docker engine answers, with two workers where memory allows (``kind.py``);
3. the binaries in ``KUBEBUILDER_ASSETS``, where they include a kubelet;
4. Debian's source package ``kubernetes``, built once and cached (``build.py``).

``RFT_TEST_CLUSTER`` selects the second (kind), the third (node) or the fourth (old). ``up`` stores its choice
in a file, so that later commands find the same cluster even with other environment variables.

The last two run a *node*: one process tree in PID, mount and network namespaces of its own
(``node.py``). Every process, mount, iptables rule, link and network namespace that Kubernetes creates is in
these namespaces, so the kernel removes them when the node's first process ends. ``down`` has to remove only
cgroups, data files and empty mount points (``host.py``).
"""
