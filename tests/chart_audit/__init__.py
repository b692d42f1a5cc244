"""Runs checkov on the chart with six sets of values. Each finding needs a reason in ``argued.yaml``."""
