"""Measures the operator with a thousand RFTJobs: while they are created, idle and reporting.

`make bench-operator` starts a real API server with etcd and controllers. The operator is a separate process.
There is no node, so no container runs. The benchmark sets the status of the pods, in place of kubelets. It
sends the reports, in place of trainers. Each report has a token that is bound to its pod, an IP address of
its own, and a new connection. The operator's requests are counted in the API server's audit log. At the end
all processes and files are removed, also after an error.
"""
