"""A current API server, for tests of the CRD's rules in CEL.

The test cluster's API server may be an old one, which ignores parts of a CRD that it does not know. If
``KUBEBUILDER_ASSETS`` has a current kube-apiserver, the tests run it with etcd, but without controllers.
Otherwise only the part of the API server for custom resources is built: structural schemas, CEL and
server-side apply. It has no pods, no controllers and no ``/api``, without which kubectl does not work. So the
tests send REST requests to both servers.

``python -m tests.modern build`` finds or builds the server. ``python -m tests.modern run`` runs it until it
is interrupted.
"""
