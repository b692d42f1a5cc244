"""Calculates the GPUs, CPUs and memory that a job needs.

This package has no side effects. Of the project's other packages it imports only ``rft_api``.
"""
