"""Samples rollouts with one of two engines (vLLM's server, or plain transformers), and forms their groups."""
