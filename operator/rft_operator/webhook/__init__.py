"""The admission webhook: a stateless server of its own that answers one question about one RFTJob.

It imports neither kopf nor the reconciler's I/O: with certificates from files it needs no API server.
"""
