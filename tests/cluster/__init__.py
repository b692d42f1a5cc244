"""The test cluster: a real Kubernetes cluster for the integration and end-to-end tests.

``python3 -m tests.cluster up``, run in the repository root, starts the cluster unless it is running, and
prints the path of its kubeconfig. The package needs only the standard library, so it works before a
virtual environment exists.

Four providers, in order of preference (``provider.py``):

1. the cluster of the kubeconfig in ``RFT_TEST_KUBECONFIG``;
2. ``kind``, if a Docker engine answers; with two workers if there is enough memory (``kind.py``);
3. the binaries in ``KUBEBUILDER_ASSETS``, if they include a kubelet;
4. Debian's source package ``kubernetes``, which is built once and cached (``build.py``).

``RFT_TEST_CLUSTER`` selects the second (``kind``), the third (``node``) or the fourth (``old``). ``up``
records its choice in a file, so that later commands find the same cluster, even with other environment
variables.

The last two run a *node*: a process tree with its own PID, mount and network namespaces (``node.py``). All
processes, mounts, iptables rules, links and network namespaces that Kubernetes creates are in these
namespaces. The kernel removes them when the node's first process ends. ``down`` itself removes only cgroups,
data files and empty mount points (``host.py``).
"""
