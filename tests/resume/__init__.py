"""Checks that a run with vLLM that is killed repeatedly has the same result as an undisturbed run."""
