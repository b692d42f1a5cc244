"""Builds the manifests of the child objects from models, with pure functions."""
