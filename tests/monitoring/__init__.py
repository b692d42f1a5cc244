"""Alerts and dashboard against a real Prometheus: ``python -m tests.monitoring``."""
