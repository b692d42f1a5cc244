"""Measures the operator with a thousand RFTJobs: while they are created, idle and reporting.

`make bench-operator` starts a real API server with etcd and controllers, and the operator as a separate
process. There is no node, so no container runs. The benchmark sets the pods' status in place of a kubelet. It
also sends the reports in place of the trainers: each with a token bound to its pod, from its own IP address,
over a new connection every time. The operator's requests are counted from the API server's audit log. All
processes and files are removed at the end, also after an error.
"""
