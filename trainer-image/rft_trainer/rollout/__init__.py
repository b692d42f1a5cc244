"""Samples rollouts with one of two engines (vLLM's server, or plain transformers), and forms groups of them.

A group has the rollouts of one prompt.
"""
