"""The admission webhook: a stateless server that decides whether the API server accepts an RFTJob.

It imports neither kopf nor the I/O of the reconciler: with certificates from files it needs no API server.
"""
