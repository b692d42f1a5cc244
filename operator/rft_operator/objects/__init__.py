"""Builders of the child objects. Pure: they take models and return manifests."""
