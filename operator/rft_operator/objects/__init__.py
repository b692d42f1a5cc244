"""Builds the manifests of the objects that the operator creates for an RFTJob, with pure functions."""
