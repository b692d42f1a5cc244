"""Measures the operator with a thousand RFTJobs: while they are created, idle and reporting.

`make bench-operator` starts a real API server with etcd and controllers, and the operator as a separate
process. There is no node, so no container runs. Instead of kubelets, the benchmark sets the status of the
pods. Instead of trainers, it sends reports: each with a token that is bound to its pod, from an IP address of
its own, over a new connection. The operator's requests are counted in the API server's audit log. All
processes and files are removed at the end, also after an error.
"""
