"""Checks that a run with real vLLM that is killed repeatedly ends like an undisturbed run."""
