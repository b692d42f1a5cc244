"""A current API server, for tests of the CRD's rules in CEL.

The test cluster's API server may be an old one, which ignores parts of a CRD that it does not know. Where
``KUBEBUILDER_ASSETS`` has a current kube-apiserver, it runs here with an etcd, without other components. Else
its part for custom resources is built (structural schemas, CEL, server-side apply). That part has no pods, no
controllers and no ``/api``, without which kubectl does not work. So the tests use REST for both.

``python -m tests.modern build`` finds or builds it; ``python -m tests.modern run`` runs one until it is
interrupted.
"""
