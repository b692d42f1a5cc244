"""The trainer: does one reinforcement fine-tuning run. It samples from vLLM's server or transformers."""
