"""The operator in a fleet: thousands of fake GPU nodes, thousands of RFTJobs, and Kueue. `make bench-fleet`.

A whole control plane runs for it (etcd, kube-apiserver, kube-controller-manager, kube-scheduler), kwok in
place of the kubelets, and Kueue where jobs are queued; the operator is a process of its own that serves all
namespaces. Pods are scheduled for real and run nowhere: kwok says that they start, run, fail and end. Reports
are pushed with tokens bound to the pods. All of it ends with the bench, however that ends.
"""
