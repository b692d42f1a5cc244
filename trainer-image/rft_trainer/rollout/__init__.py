"""Sampling: an engine protocol, vLLM's server behind it, and plain transformers as the second engine."""
