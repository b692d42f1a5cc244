"""The test cluster: a real Kubernetes cluster for the integration and end-to-end tests.

Run ``python3 -m tests.cluster up`` in the repository root. The command starts the cluster unless it is
running, and prints the path of its kubeconfig. This package needs only the standard library, so it works
before a virtual environment exists.

There are four providers of a cluster. The first one that works here is used (``provider.py``):

1. the cluster of the kubeconfig in ``RFT_TEST_KUBECONFIG``;
2. ``kind``, if a Docker engine answers. It has two workers if there is enough memory (``kind.py``);
3. the binaries in ``KUBEBUILDER_ASSETS``, if they include a kubelet;
4. Debian's source package ``kubernetes``, which is built once and cached (``build.py``).

The variable ``RFT_TEST_CLUSTER`` selects a provider: ``kind`` the second, ``node`` the third, ``old`` the
fourth. ``up`` writes its choice into a file. So later commands find the same cluster, even with other
environment variables.

The providers 3 and 4 run a *node*: a process tree with its own PID, mount and network namespaces
(``node.py``). Kubernetes creates processes, mounts, iptables rules, links and network namespaces only inside
the node. The kernel removes all of them when the node's first process ends. ``down`` itself removes only
cgroups, data files and empty mount points (``host.py``).
"""
