"""Calculates the GPUs, CPUs and memory that a job needs. It has no side effects, and imports only rft_api."""
