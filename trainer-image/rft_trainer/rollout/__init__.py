"""Sampling: the protocol of engines, and two of them: vLLM's server, and plain transformers."""
