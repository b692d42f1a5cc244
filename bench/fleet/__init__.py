"""Measures the operator with thousands of fake GPU nodes and RFTJobs: `make bench-fleet`.

It starts a complete control plane: etcd, kube-apiserver, kube-controller-manager and kube-scheduler. kwok
replaces the kubelets. The last part of the benchmark, with queued jobs, also runs Kueue. The operator is a
separate process that serves all namespaces.

The scheduler places the pods on nodes, but no container runs: kwok only reports that pods start, fail and
end. The benchmark sends the reports of the trainers, with tokens that are bound to the pods. All processes
are stopped when the benchmark ends, also after an error.
"""
