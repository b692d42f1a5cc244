"""Checks that a run with real vLLM that is killed repeatedly has the same result as an undisturbed run."""
