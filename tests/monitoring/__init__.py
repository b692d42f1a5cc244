"""Tests of alerts and dashboard with a real Prometheus: ``python -m tests.monitoring``."""
