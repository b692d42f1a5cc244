"""The trainer: does one reinforcement fine-tuning run. It samples with vLLM's server or transformers."""
