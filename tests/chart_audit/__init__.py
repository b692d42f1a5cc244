"""Checks the six renders of the chart by checkov. What it finds needs a reason in ``argued.yaml``."""
