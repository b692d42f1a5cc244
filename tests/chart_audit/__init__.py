"""Checks the six renders of the chart by checkov. What checkov finds needs a reason in ``argued.yaml``."""
