"""A run with real vLLM that is killed again and again ends as one that was left alone."""
