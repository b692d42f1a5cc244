"""Writes the generated files: the CRD, files of the chart, and pages of the documentation."""
