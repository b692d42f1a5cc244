"""Builds the manifests of the child objects, with pure functions."""
