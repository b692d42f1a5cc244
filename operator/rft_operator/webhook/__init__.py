"""The admission webhook: a stateless server that decides whether the API server accepts an RFTJob.

It does not import kopf or the controller. If its certificates come from files, it sends no request to the API
server.
"""
