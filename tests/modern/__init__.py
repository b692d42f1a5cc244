"""A modern API server for custom resources, for the tests of what the CRD says in CEL.

The test cluster's server is as old as Debian's last one, and drops what it does not know of a CRD. This
is the part of a current server that serves custom resources (structural schemas, CEL, server-side
apply), alone on an etcd: no pods, no controllers, and no ``/api``, so kubectl does not get along with
it. The tests speak REST to it.

``python -m tests.modern build`` builds it, once; ``python -m tests.modern run`` runs one until it is
interrupted.
"""
