"""Sampling: the protocol of rollout engines, and two engines: vLLM's server, and plain transformers."""
