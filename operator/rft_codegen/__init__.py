"""Writes the generated files: the CRD, the chart's copy of it, and pages of the documentation."""
