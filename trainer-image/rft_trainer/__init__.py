"""The trainer: one reinforcement fine-tuning run, as a client of vLLM's server."""
