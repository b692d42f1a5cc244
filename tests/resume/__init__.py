"""Checks that a run with vLLM gets the same result if it is killed repeatedly."""
