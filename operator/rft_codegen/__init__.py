"""Writes the generated files of this repository: the CRD, files of the Helm chart, and pages of the
documentation.
"""
