"""A current API server, for the tests of what the CRD says in CEL.

The test cluster's server may be as old as Debian's last one, and drops what it does not know of a CRD.
Where ``KUBEBUILDER_ASSETS`` has a current kube-apiserver, that one runs here, alone on an etcd. Else it is
the part of it that serves custom resources (structural schemas, CEL, server-side apply): no pods, no
controllers, and no ``/api``, so kubectl does not get along with it. The tests speak REST to either.

``python -m tests.modern build`` finds or builds it; ``python -m tests.modern run`` runs one until it is
interrupted.
"""
