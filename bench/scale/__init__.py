"""The operator with a thousand RFTJobs: applied at once, idle, and reporting. `make bench-operator`.

A real API server with its etcd and controllers is started for it, and the operator as a process of its own.
There is no node, so no container runs: the bench says what a kubelet would, and reports as trainers do, each
with a token bound to its pod, from an address of its own, over a new connection every time. What the operator
asked the API server is counted from the server's audit log. All of it ends, and the folder goes, with the
bench, however that ends.
"""
