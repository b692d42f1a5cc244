"""The admission webhook: a stateless server that decides whether the API server accepts an RFTJob.

It does not import kopf or the controller. If its certificate comes from files, it sends no requests to the
API server.
"""
