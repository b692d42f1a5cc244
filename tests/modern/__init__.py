"""A current API server, for tests of the CRD's rules in CEL.

The test cluster's API server may be old, and ignore parts of the CRD. So the tests use one of two servers:

- kube-apiserver, if ``KUBEBUILDER_ASSETS`` has a current one. It runs with etcd, but without controllers.
- Otherwise apiextensions-apiserver, built from source. It is the part of kube-apiserver for custom resources.
  It has no pods and no ``/api``, so kubectl does not work with it.

The tests send REST requests, which both servers answer.

``python -m tests.modern build`` finds or builds the server. ``python -m tests.modern run`` runs the server
until you interrupt it.
"""
